"""Downloads one file with pip's own machinery, and executes nothing of it: `pip download` builds what it downloads.

Run as a program of its own, with nothing of the project on the path:

    python -I pip_fetch.py PROJECT FILENAME SHA256 DIRECTORY [option of pip download ..]

Index, links, proxies, certificates and passwords are those of pip's configuration.
"""

import hashlib
import sys
from pathlib import Path


def main(project: str, filename: str, sha256: str, directory: str, *options: str) -> str | None:
    """Write the file to the directory if its checksum is right; return None, or else what went wrong."""
    from pip._internal.commands import create_command

    command = create_command("download")
    with command.main_context():
        chosen, _ = command.parse_args([*options, project])
        session = command.get_default_session(chosen)
        finder = command._build_package_finder(options=chosen, session=session, ignore_requires_python=True)
        links = [each.link for each in finder.find_all_candidates(project) if each.link.filename == filename]
        for link in links:
            with session.get(link.url_without_fragment, headers={"Accept-Encoding": "identity"}, stream=True) as answer:
                answer.raise_for_status()
                content = answer.raw.read()
            if hashlib.sha256(content).hexdigest() == sha256:
                Path(directory, filename).write_bytes(content)
                return None
    return f"it does not have the expected sha256 {sha256}" if links else "no package index that pip knows has it"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

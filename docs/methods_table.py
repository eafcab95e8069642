"""Write docs/methods.md, the table of all methods, from the registry and the shipped configurations.

    python docs/methods_table.py [--check]

--check writes nothing and exits with status 1 if the file is out of date.
"""

import argparse
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from adapters import METHODS, AdapterConfig  # noqa: E402
from adapters.sites import BESIDE_LINEAR, ON_WEIGHTS  # noqa: E402
from common.files import write_file  # noqa: E402
from seq2seq.settings import load_settings  # noqa: E402
from third_party.models.t5 import T5Config  # noqa: E402
from third_party.models.t5.key_usage import adapted_and_read  # noqa: E402
from third_party.models.t5.parameters import count_parameters  # noqa: E402

FILE = ROOT / "docs" / "methods.md"
HEAD = """# Methods

`python docs/methods_table.py` writes this page from `adapters/registry.py` and `configs/`; a test checks that it is up
to date.

- *Keys*: the keys that the method reads when it is built from its file, except the key that selects it;
  `python run_seq2seq.py --help` explains them. Keys that many methods have in common are not listed: for methods after
  a sublayer and beside a linear layer, `task_adapter_layers_encoder`, `task_adapter_layers_decoder` and
  `task_adapter_in_decoder` choose the blocks to adapt; with several tasks, `adapters_per_task` and `share_cores_among`
  say what they share (see [tasks.md](tasks.md)); for merged weights there are `merge_at_eval` and `merge_dtype`.
- *Trained*: number of parameters that the file trains on T5-base with 32,128 embedding rows, including the layer norms
  if the file trains them.
- *Mergeable*: "yes" means that `eval()` computes with one merged weight and that `merge_and_export` writes a T5 without
  adapters; "on export" means only the latter.

"""
TASK_KEYS = {"adapters_per_task", "share_cores_among"}
BLOCK_KEYS = {f"task_adapter_{name}" for name in ("layers_encoder", "layers_decoder", "in_decoder")}
FREEZING_KEYS = {"freeze_backbone", "freeze_embedding", "unfreeze_lm_head", "unfreeze_layer_norms", "bitfit"}
UNLISTED = BLOCK_KEYS | TASK_KEYS | FREEZING_KEYS | {"tasks", "merge_at_eval", "merge_dtype"}
COLUMNS = ("method", "site", "formula", "paper", "keys", "file", "trained", "mergeable")


@cache
def shipped() -> dict[str, AdapterConfig]:
    """Return the name of each file in configs/ -> its configuration."""
    return {path.stem: load_settings(str(path), [])[0].adapter for path in (ROOT / "configs").glob("*.json")}


def file_of(method: str) -> tuple[str, AdapterConfig]:
    """Return (name, configuration) of the shipped file that uses only this method.

    Of several files, prefer tensor trains to rings, then the shortest name.
    """
    names = [name for name, config in shipped().items() if list(config.methods.values()) == [method]]
    if not names:
        raise LookupError(f"{method} has no file in configs/")
    name = min(names, key=lambda name: (shipped()[name].tensor_ring, len(name), name))
    return name, shipped()[name]


def row_of(method: str) -> tuple[str, ...]:
    name, config = file_of(method)
    model, read = adapted_and_read(T5Config.from_shape("t5-base"), config)
    keys = ", ".join(f"`{key}`" for key in sorted(read - UNLISTED - {method}, key=str.lower))
    (site,), entry = config.methods, METHODS[method]
    paper, _, url = entry.paper.rpartition(", ")
    shown, trained = f"[{name}](../configs/{name}.json)", f"{count_parameters(model)['trainable']:,}"
    return (
        method,
        site,
        f"`{entry.formula}`",
        f"[{paper}]({url})",
        keys,
        shown,
        trained,
        mergeable(site, entry.foldable),
    )


def mergeable(site: str, foldable: bool) -> str:
    """The entry of the column "mergeable"."""
    if not foldable:
        return "no"
    return "yes" if site in (BESIDE_LINEAR, ON_WEIGHTS) else "on export"


def escaped(cell: str) -> str:
    """Escape the text of a table cell."""
    return cell.replace("|", "\\|")


def table() -> str:
    """Return the content of docs/methods.md."""
    rows = [COLUMNS, ("---",) * (len(COLUMNS) - 2) + ("---:", "---"), *(row_of(method) for method in METHODS)]
    return HEAD + "".join(f"| {' | '.join(escaped(cell) for cell in row)} |\n" for row in rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write docs/methods.md.", allow_abbrev=False)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with status 1 if the file is out of date"
    )
    given, content = parser.parse_args(), table()
    if given.check:
        if FILE.read_text() != content:
            print("docs/methods.md is out of date; run python docs/methods_table.py", file=sys.stderr)
            sys.exit(1)
        sys.exit(0)
    write_file(FILE, content)

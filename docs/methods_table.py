"""Writes docs/methods.md, the table of all methods, from the registry and the shipped configurations.

    python docs/methods_table.py [--check]

--check writes nothing and ends with status 1 if the file is not what would be written.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from adapters import METHODS, AdapterConfig  # noqa: E402
from adapters.sites import BESIDE_LINEAR, ON_WEIGHTS  # noqa: E402
from common.files import write_file  # noqa: E402
from seq2seq.settings import load_settings  # noqa: E402
from third_party.models.t5 import T5Config, T5ForConditionalGeneration  # noqa: E402
from third_party.models.t5.parameters import count_parameters  # noqa: E402

FILE = ROOT / "docs" / "methods.md"
HEAD = """# Methods

Written by `python docs/methods_table.py` from `adapters/registry.py` and `configs/`; a test compares. *Keys* are those
that a method reads when it is built from its file, beside that of its name; `python run_seq2seq.py --help` explains
them. After a sublayer and beside a linear layer, `task_adapter_layers_encoder`, `task_adapter_layers_decoder` and
`task_adapter_in_decoder` say which blocks are adapted; for several tasks `adapters_per_task` and `share_cores_among`
what they have in common (see [tasks.md](tasks.md)); where there is a merged weight, `merge_at_eval` and
`merge_dtype` hold. *Trained* counts on T5-base with 32,128 rows of embedding all that the file trains, layer norms
included where it says so. *Mergeable*: "yes", `eval()` computes with one merged
weight, and `merge_and_export` writes a T5 without any adapter; "on export", the second only.

"""
OF_TASKS = {"adapters_per_task", "share_cores_among"}
PLACES = {f"task_adapter_{name}" for name in ("layers_encoder", "layers_decoder", "in_decoder")}
WHAT_ELSE_IS_TRAINED = {"freeze_backbone", "freeze_embedding", "unfreeze_lm_head", "unfreeze_layer_norms", "bitfit"}
HIDDEN = PLACES | OF_TASKS | WHAT_ELSE_IS_TRAINED | {"tasks", "merge_at_eval", "merge_dtype"}
COLUMNS = ("method", "site", "formula", "paper", "keys", "file", "trained", "mergeable")


class Recorded(AdapterConfig):
    """A configuration that notes which of its keys are read."""

    def __getattribute__(self, name: str):
        if name in object.__getattribute__(self, "__dict__").get("keys", ()):
            object.__getattribute__(self, "read").add(name)
        return object.__getattribute__(self, name)

    @classmethod
    def of(cls, config: AdapterConfig) -> "Recorded":
        recorded = cls(**config.to_dict())
        recorded.read, recorded.chosen = set(), config.methods
        recorded.keys = set(config.to_dict())
        return recorded

    @property
    def methods(self) -> dict[str, str]:
        # The base class looks at all flags, which is not what a method reads.
        found = self.__dict__.get("chosen")
        return AdapterConfig.methods.fget(self) if found is None else found


def file_of(method: str) -> tuple[str, AdapterConfig]:
    """The configuration that has this method alone; of several a train before a ring, and the shortest name."""
    found = []
    for path in (ROOT / "configs").glob("*.json"):
        config = load_settings(str(path), [])[0].adapter
        if list(config.methods.values()) == [method]:
            found.append((config.tensor_ring, len(path.stem), path.stem, config))
    if not found:
        raise LookupError(f"{method} has no file in configs/")
    return min(found, key=lambda entry: entry[:3])[2:]


def row_of(method: str) -> tuple[str, ...]:
    name, config = file_of(method)
    recorded = Recorded.of(config)
    with torch.device("meta"):
        model = T5ForConditionalGeneration(T5Config.from_shape("t5-base"), recorded)
        keys = ", ".join(f"`{key}`" for key in sorted(recorded.read - HIDDEN - {method}, key=str.lower))
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
    """What becomes of the method in plain weights, and when."""
    if not foldable:
        return "no"
    return "yes" if site in (BESIDE_LINEAR, ON_WEIGHTS) else "on export"


def escaped(cell: str) -> str:
    """Return the text of a cell in which no | ends it."""
    return cell.replace("|", "\\|")


def table() -> str:
    """The whole document."""
    rows = [COLUMNS, ("---",) * (len(COLUMNS) - 2) + ("---:", "---"), *(row_of(method) for method in METHODS)]
    return HEAD + "".join(f"| {' | '.join(escaped(cell) for cell in row)} |\n" for row in rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write docs/methods.md.", allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="only compare")
    given, content = parser.parse_args(), table()
    if given.check:
        if FILE.read_text() != content:
            print(
                "docs/methods.md is not what the registry says; python docs/methods_table.py writes it", file=sys.stderr
            )
            sys.exit(1)
        sys.exit(0)
    write_file(FILE, content)

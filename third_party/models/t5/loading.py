"""Checks of a loaded backbone: its file fills every tensor of the model, and nothing in the file is left over."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn

from common.errors import ConfigError, warn_once

SHOWN = 3  # names in a message
# What transformers raises for files that are absent, damaged or of another kind.
UNLOADABLE = (OSError, ValueError, RuntimeError, ImportError, KeyError, SafetensorError, StrictDataclassError)


@contextmanager
def without_report() -> Iterator[None]:
    """Keep transformers from printing a table of what does not fit; `check_loaded` says it in one line."""
    logger = logging.getLogger("transformers.modeling_utils")

    def is_no_report(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger.addFilter(is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(is_no_report)


def check_loaded(info: dict[str, Any], source: object, *, ignore_mismatched_sizes: bool = False) -> None:
    """Raise ConfigError unless the tensors of a file are those of the model, in names and shapes.

    info: what `from_pretrained` returns with output_loading_info=True. transformers has removed from it what is
        harmless: copies of tied tensors, and one tensor that published T5 files have and never use.
    source: the name of the file or model, for the message.
    ignore_mismatched_sizes: only warn about shapes, as the caller asked transformers to initialise such tensors.
    """
    unexpected, missing = info["unexpected_keys"], info["missing_keys"]
    shapes = [f"{name} {tuple(there)} instead of {tuple(here)}" for name, there, here in info["mismatched_keys"]]
    wrong = []
    if unexpected:
        wrong.append(f"{len(unexpected)} of the tensors in its file are left over, such as {first(unexpected)}")
    if missing:
        wrong.append(f"{len(missing)} of the model's tensors are missing from its file, such as {first(missing)}")
    if shapes and ignore_mismatched_sizes:
        warn_once(f"{source}: ignore_mismatched_sizes left {len(shapes)} tensors random, such as {first(shapes)}")
    elif shapes:
        wrong.append(f"{len(shapes)} tensors have another shape than its config.json says, such as {first(shapes)}")
    if info.get("error_msgs"):
        wrong.append(" ".join(str(info["error_msgs"][0]).split()))
    if wrong:
        raise ConfigError(f"{source} is not a T5 for conditional generation: {'; '.join(wrong)}")


def check_finite(model: nn.Module, source: object) -> None:
    """Raise ConfigError if a loaded tensor has values that are not finite. source: as in `check_loaded`."""
    wild = [name for name, tensor in model.named_parameters() if not (tensor.is_meta or tensor.isfinite().all())]
    if wild:
        raise ConfigError(f"{source} is damaged: it has values that are not finite, such as in {first(wild)}")


def first(names: Collection[str]) -> str:
    """The first names, in alphabetical order, for a message of one line."""
    return " ".join(", ".join(sorted(names)[:SHOWN]).split())

"""Adapters of several tasks from before each task had its own branches beside linear layers."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from adapters import AdapterConfig
from adapters.sites import AFTER_SUBLAYER, BESIDE_LINEAR
from common.errors import ConfigError


def with_shared_branches(config: AdapterConfig, tensors: Collection[str], directory: Path) -> AdapterConfig:
    """Return the configuration that means today what `config` meant when it was saved with `tensors`.

    Up to version 0.1.0 tasks shared their branches whatever adapters_per_task said. The files have no mark of it, but
    the names of their tensors show it.
    Raises ConfigError if the tasks have adapters of their own after the sublayers as well.
    """
    if len(config.tasks) == 1 or not config.per_task or BESIDE_LINEAR not in config.methods:
        return config
    branches = [name for name in tensors if ".branch." in name]
    if not branches or any(".branch.branches." in name for name in branches):
        return config
    if AFTER_SUBLAYER in config.methods:
        raise ConfigError(
            f"{directory} was saved up to version 0.1.0, with adapters for each of {', '.join(config.tasks)} but "
            "branches that they share, which cannot be built any more; train it again with adapters_per_task true or "
            "false"
        )
    return replace(config, adapters_per_task=False)

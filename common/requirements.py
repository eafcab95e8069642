"""The packages of the laboratory, which the distribution does not bring."""

from collections.abc import Iterable
from importlib.util import find_spec

from common.errors import ConfigError

LAB = (
    *("accelerate", "datasets", "matplotlib", "numpy", "rich", "safetensors", "scipy", "sentencepiece", "sklearn"),
    *("tqdm", "transformers"),
)


def check_installed(packages: Iterable[str] = LAB) -> None:
    """Raise ConfigError unless these packages of the extra `lab` are installed. Imports none of them.

    packages: by default those that every program needs.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigError(f'{", ".join(missing)} not installed; in the clone, run pip install -e ".[lab]"')

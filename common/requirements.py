"""The packages of the laboratory, which the distribution does not bring."""

from importlib.util import find_spec

from common.errors import ConfigError

LAB = (
    *("accelerate", "datasets", "matplotlib", "numpy", "rich", "safetensors", "scipy", "sentencepiece", "sklearn"),
    *("tqdm", "transformers"),
)


def check_installed() -> None:
    """Raise ConfigError unless every package of the extra `lab` is installed. Imports none of them."""
    missing = [name for name in LAB if find_spec(name) is None]
    if missing:
        raise ConfigError(f'{", ".join(missing)} not installed; in the clone, run pip install -e ".[lab]"')

"""The Hugging Face hub: asked once whether it answers; if it does not, its cache is used at once."""

from functools import cache

import datasets
from huggingface_hub import constants, get_session

from adapters import one_line


@cache
def hub_answers() -> bool:
    """Whether the hub can be reached. If not, its libraries are told: each would try six times, for half a minute."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # the network library's own, which changes with huggingface_hub
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        return False
    return True


def reason(error: Exception) -> str:
    """Why something of the hub's could not be loaded, in one line."""
    return one_line(error) if hub_answers() else "the hub cannot be reached, and its cache does not have it"

"""The Hugging Face hub: asked once whether it answers; if it does not, its cache is used at once."""

import ssl
from functools import cache
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import datasets
from huggingface_hub import constants

from common.errors import one_line


@cache
def hub_answers() -> bool:
    """Whether the hub can be reached. If not, its libraries are told: each would try six times, for half a minute."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=10).close()
    except HTTPError:
        return True  # with a refusal, which is an answer
    except OSError as error:  # URLError is one
        if isinstance(getattr(error, "reason", error), ssl.SSLError):
            return True  # the libraries may know certificates that Python does not
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        return False
    return True


def reason(error: Exception) -> str:
    """Why something of the hub's could not be loaded, in one line."""
    return one_line(error) if hub_answers() else "the hub cannot be reached, and its cache does not have it"

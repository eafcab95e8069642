"""The Hugging Face hub: checked once; if it does not answer, only its local cache is used."""

import ssl
from functools import cache
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import datasets
from huggingface_hub import constants

from common.errors import one_line


@cache
def hub_answers() -> bool:
    """Return True if the hub can be reached; if not, switch its libraries to offline mode.

    Otherwise each library would retry six times, for half a minute.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=10).close()
    except HTTPError:
        return True  # a refusal is an answer, too
    except OSError as error:  # URLError is a subclass
        if isinstance(getattr(error, "reason", error), ssl.SSLError):
            return True  # the libraries may have certificates that Python lacks
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        return False
    return True


def reason(error: Exception) -> str:
    """Return why something could not be loaded from the hub, in one line."""
    return one_line(error) if hub_answers() else "the hub cannot be reached, and its local cache does not have it"

"""Passwords and tokens: which keys hold one, and how they are kept out of what is printed and written."""

import os
import re
from typing import Any

HIDDEN = "(hidden)"
DIRECTORIES = ("PWD", "OLDPWD")  # where a shell is, and was; no passwords
SHORTEST = 6  # a shorter value would also be found inside harmless words
_NAME = re.compile(
    r"(^|[._-])(token|pass(word|wd|phrase|code)|pwd|secrets?|credentials?|authorization|bearer|cookie|auth|"
    r"(api|access|secret|private|auth)_?key)$"
)
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_IN_ADDRESS = re.compile(r"(://(?:[^/\s:@]*:)?)[^/\s@]+@")  # user:password@ or token@
_known: set[str] = set()


def is_secret(name: object) -> bool:
    """Return True if a key of this name holds a secret: hub_token, api_key, WANDB_API_KEY, .."""
    return isinstance(name, str) and _NAME.search(_HUMP.sub("_", name).lower()) is not None


def without_secrets(value: Any) -> Any:
    """Return a copy of a JSON value without the keys that hold secrets, and passwords in addresses, at any depth."""
    if isinstance(value, dict):
        return {name: without_secrets(each) for name, each in value.items() if not is_secret(name)}
    if isinstance(value, str):
        return _hidden_in_addresses(value)
    return [without_secrets(each) for each in value] if isinstance(value, list) else value


def remember_secrets(value: Any) -> None:
    """Have the secrets in a JSON value masked in messages from now on."""
    waiting = [(value, False)]
    while waiting:
        each, secret = waiting.pop()
        if isinstance(each, dict):
            waiting += [(part, secret or is_secret(name)) for name, part in each.items()]
        elif isinstance(each, list):
            waiting += [(part, secret) for part in each]
        elif secret and isinstance(each, str):
            _known.add(each)


def remember_arguments(argv: list[str]) -> None:
    """Have the secrets of a command line, `--hub_token X` or `--hub_token=X`, masked from now on."""
    for argument, following in zip(argv, [*argv, ""][1:], strict=True):
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            remember_secrets({name[2:]: value if equals else following})


def masked(text: str) -> str:
    """Return `text` with every known secret hidden: those that were read and those of the environment."""
    secrets = _known | {value for name, value in os.environ.items() if is_secret(name) and name not in DIRECTORIES}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST:
            text = text.replace(secret, HIDDEN)
    return _hidden_in_addresses(text)


def _hidden_in_addresses(text: str) -> str:
    return _IN_ADDRESS.sub(rf"\1{HIDDEN}@", text)

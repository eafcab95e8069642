"""A method by its name alone: the keys that choose it."""

from difflib import get_close_matches
from typing import Any

from adapters import METHODS, AdapterConfig
from common.errors import ConfigError
from common.keys import key_fields, key_types

WITHOUT_ADAPTERS = {"full fine-tuning": {}, "norms only": {"freeze_backbone": True, "unfreeze_layer_norms": True}}


def keys_of_method(name: str) -> dict[str, Any]:
    """Return the keys that choose a method of the registry, "full fine-tuning" or "norms only".

    Raises ConfigError for an unknown method, or one that is chosen by a number.
    """
    if name in WITHOUT_ADAPTERS:
        return dict(WITHOUT_ADAPTERS[name])
    if name not in METHODS:
        near = get_close_matches(name, [*METHODS, *WITHOUT_ADAPTERS], 1)
        hint = f"did you mean {near[0]}?" if near else f"methods: {', '.join(METHODS)}"
        raise ConfigError(f"configurations contains {name!r}, which is neither a method nor a .json file; {hint}")
    found = {f.metadata.get("method", f.name): f for f in key_fields(AdapterConfig) if "site" in f.metadata}
    by_key = {f.name: f for f in found.values()}
    if key_types(AdapterConfig)[found[name].name] is not bool:
        raise ConfigError(
            f"configurations contains {name!r}, which is chosen by a number; write "
            f'{{"name": "{name}", "keys": {{"{name}": ..}}}}'
        )
    keys, field = {}, found[name]
    while field is not None:
        keys[field.name] = True
        field = by_key.get(field.metadata.get("form_of"))
    return keys

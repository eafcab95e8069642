"""What scripts of the first version of this comparison say: its spellings, defaults and rules.

Spellings are always understood. Defaults and rules are those of the first version under `legacy=True`; what differs
otherwise is in docs/expressivity.md.
"""

from difflib import get_close_matches

import torch

from expressivity.errors import ExpressivityError

SPACE = {
    "mesure": "measure",
    "mesurement": "measure",
    "measurement": "measure",
    "automatic_mesurement_mode": "automatic_measurement_mode",
}
COMPARATOR = {"A_space": "A", "B_space": "B", "base_space": "base"}
COMPARE = {"variance_threashold": "variance_threshold"}
MODES = {"parameter": "parameters"}
DEFAULTS = {"lr": 0.001, "optimizer": torch.optim.AdamW}


def translated(given: dict, spellings: dict[str, str], known: dict[str, object], what: str) -> dict:
    """Map legacy spellings of keywords to current ones.

    given: keywords that are none of the current ones.
    spellings: current keyword by legacy one.
    known: the current keywords with their values, of which None is "not given".
    what: the beginning of an error message.

    Raises ExpressivityError for any other keyword, and for one that is given twice.
    """
    mapped: dict[str, object] = {}
    for key, value in given.items():
        if key not in spellings:
            near = get_close_matches(key, [*known, *spellings], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ExpressivityError(f"{what}: unknown keyword {key}{hint}")
        current = spellings[key]
        if current in mapped or (known.get(current) is not None and value is not None):
            raise ExpressivityError(f"{what}: {key} and {current} are the same keyword; set only {current}")
        mapped[current] = value
    return mapped

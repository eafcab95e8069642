"""Targets of the users' own data: labels, numbers or free text."""

import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from difflib import get_close_matches

import pyarrow
import pyarrow.compute as pc

from common.errors import shortened

DECIMALS = 2  # that a number may have without target_step: every further one makes ten times as many targets
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
LARGEST = Decimal("1e15")
SHOWN = 40  # characters of a cell in a message


class Unusable(ValueError):
    """A target that cannot be used. The message says what it is and what would be allowed."""


class FreeText:
    """Any text, without the spaces around it."""

    def of(self, text: str) -> str:
        """Return the target that a cell stands for. Raises Unusable."""
        return text.strip()


class Found:
    """Labels that are not known yet: the texts that occur, with one space between words; 1.0 is the label "1"."""

    def of(self, text: str) -> str:
        text = " ".join(text.split())
        whole = re.fullmatch(r"(-?\d+)\.0+", text)
        return whole[1] if whole else text


class Labels:
    """One of some labels. White space does not count; 1.0 stands for the label "1", and true for the label "True"."""

    def __init__(self, labels: Sequence[str]):
        self.labels = list(labels)
        # Of labels that are the same in other respects, the one that is written like the cell.
        self.known = {self._plain(label): label for label in reversed(labels)}
        self.known |= {" ".join(label.split()): label for label in labels}

    @staticmethod
    def _plain(label: str) -> str:
        text = Found().of(label)
        return text.lower() if text.lower() in BOOLEANS else text

    def of(self, text: str) -> str:
        for form in (" ".join(text.split()), self._plain(text)):
            if form in self.known:
                return self.known[form]
        near = get_close_matches(text.strip(), self.known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        allowed = shortened(", ".join(self.labels), 120)
        raise Unusable(f"is {shortened(repr(text.strip()), SHOWN)}; allowed by labels: {allowed}{hint}")


BOOLEANS = ("true", "false")


class Numbers:
    """Numbers, to the nearest multiple of a step if there is one, else as they are, if they have few decimals."""

    def __init__(self, step: float | None):
        self.step = None if step is None else Decimal(str(step))

    def of(self, text: str) -> str:
        text = text.strip()
        number = Decimal(text) if NUMBER.fullmatch(text) else None
        if number is None or abs(number) >= LARGEST:
            raise Unusable(f"is {shortened(repr(text), SHOWN)}; it must be a number below {LARGEST:.0e}")
        if self.step is not None:
            number = (number / self.step).to_integral_value(ROUND_HALF_EVEN) * self.step
            return _plain(number.quantize(Decimal(1).scaleb(min(self.step.normalize().as_tuple().exponent, 0))))
        decimals = -number.normalize().as_tuple().exponent
        if decimals > DECIMALS:
            raise Unusable(
                f"is {shortened(repr(text), SHOWN)}, with {decimals} decimals; set target_step, such as 0.1, to which "
                f"targets are rounded, or write at most {DECIMALS} decimals"
            )
        return text if re.fullmatch(r"-?\d+(\.\d+)?", text) and number else _plain(number)


def _plain(number: Decimal) -> str:
    """Return a number without an exponent, and zero without a sign."""
    return f"{number if number else abs(number):f}"


Reader = FreeText | Found | Labels | Numbers


def read_targets(reader: Reader, cells: pyarrow.Array) -> tuple[pyarrow.Array, dict[int, str]]:
    """Return the targets of cells, null for a cell that is missing or unusable, and what is wrong with the latter."""
    if isinstance(reader, FreeText):
        return pc.utf8_trim_whitespace(cells), {}
    encoded = pc.dictionary_encode(cells)
    targets: list[str | None] = []
    wrong: dict[int, str] = {}
    for place, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            targets.append(reader.of(text))
        except Unusable as error:
            targets.append(None)
            wrong[place] = str(error)
    found = pyarrow.array(targets, pyarrow.string()).take(encoded.indices)
    if not wrong:
        return found, {}
    indices = encoded.indices.to_pylist()
    return found, {place: wrong[index] for place, index in enumerate(indices) if index in wrong}


def accepted_targets(
    reader: Reader, targets: pyarrow.Array, lists: Mapping[int, Sequence[str]], problems: dict[int, str]
) -> pyarrow.Array:
    """Return the accepted targets of each row: all items of a list, else the target alone.

    lists: place -> the texts of a cell that holds several.
    problems: gains those of items that cannot be used.
    """
    accepted = [[target] for target in targets.to_pylist()]
    for place, texts in lists.items():
        try:
            accepted[place] = [reader.of(text) for text in texts]
        except Unusable as error:
            problems.setdefault(place, f"a target {error}")
    return pyarrow.array(accepted, pyarrow.list_(pyarrow.string()))

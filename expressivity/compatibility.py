"""Whether families can be compared: as many sizes, equal measures, networks of equal input and output sizes."""

import warnings

from expressivity.errors import ExpressivityError
from expressivity.randomness import seeded
from expressivity.sizes import trainable_parameters
from expressivity.spaces import ArchitecturalSpace
from expressivity.targets import outputs, sampled
from expressivity.verdict import FAMILIES


def count_of(spaces: dict[str, ArchitecturalSpace]) -> int:
    """The number of sizes. Raises ExpressivityError unless it is the same for all spaces."""
    counts = [(space.name, space.count) for space in spaces.values() if space.count is not None]
    if len({count for _, count in counts}) > 1:
        shown = ", ".join(f"{name!r} {count}" for name, count in counts)
        raise ExpressivityError(f"all spaces must have the same number of sizes; given: {shown}")
    return counts[0][1] if counts else 1


def check_measures(spaces: dict[str, ArchitecturalSpace], measures: dict[str, list], tolerance: float) -> None:
    """Raise ExpressivityError unless A and B have equal measures; if a space is a legacy one, warn."""
    a, b = measures["A"], measures["B"]
    if all(abs(x - y) <= tolerance * max(x, y) for x, y in zip(a, b, strict=True)):
        return
    message = (
        "without a base, A and B must have the same measure at each size "
        f"(within tolerance {tolerance:g}); {spaces['A'].name!r} has {a}, {spaces['B'].name!r} has {b}; "
        "change their parameters, set tolerance, or give a base"
    )
    if not any(space.legacy for space in spaces.values()):
        raise ExpressivityError(message)
    warnings.warn(message, stacklevel=4)


def check_networks(spaces: dict[str, ArchitecturalSpace], count: int, law) -> None:
    """Raise ExpressivityError unless all networks have the same sizes and those to fit have parameters."""
    first = spaces["A"]
    fitted = {spaces[family] for family in FAMILIES if spaces[family].train is None}
    for space in spaces.values():
        if space.input_size != first.input_size:
            raise ExpressivityError(
                f"input sizes differ: {first.name!r} has {first.input_size}, {space.name!r} has {space.input_size}"
            )
    for index in range(count):
        shapes = {}
        for space in spaces.values():
            with seeded("check", index):
                x = sampled(law, 2, space, index)
                network = space.build(index)
                shapes[space] = tuple(outputs(space, index, network, x).shape[1:])
            if space in fitted and not trainable_parameters(network):
                raise ExpressivityError(f"{space.where(index)}: the network has no trainable parameters")
            if shapes[space] != shapes[first]:
                raise ExpressivityError(
                    f"size {index}: output sizes differ: {first.name!r} has {shapes[first]}, "
                    f"{space.name!r} has {shapes[space]}"
                )

"""Families of networks with one member per size."""

import inspect
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from common.errors import type_and_line
from expressivity.errors import COUNT, POSITIVE, SEVERAL, ExpressivityError, each_is
from expressivity.legacy import DEFAULTS as LEGACY_DEFAULTS
from expressivity.legacy import MODES, translated
from expressivity.legacy import SPACE as SPELLINGS
from expressivity.randomness import redrawn, seeded
from expressivity.sizes import COUNTED, UNITS

AUTO = "auto"
DEFAULT_MODE = "information"
ALLOWED = {
    "lr": (f"{POSITIVE[0]}, or {AUTO!r}", POSITIVE[1]),
    "epoch": COUNT,
    "batch_size": SEVERAL,
    "automatic_batch_size_scale": POSITIVE,
    "measure": POSITIVE,
    "mini_batch_size": COUNT,
    "grad_clamp": POSITIVE,
}
DEFAULTS = {"lr": 0.01, "optimizer": torch.optim.Adam}
Routine = Callable[[nn.Module, torch.Tensor, torch.Tensor], nn.Module]


class ArchitecturalSpace:
    """A family of networks with one member per size, and the way its members are fitted.

    Every argument that takes a number also takes a list of numbers, one per size, and so does train.

    input_size: shape of one input, without the batch dimension.
    name: name in messages, tables and figures; None: the name of the architecture.
    architecture: class or callable that builds a network; its initialisation is the distribution of the weights. Or a
        list with one item per size, of callables or of modules that are re-initialised by `reset_parameters`.
    parameters: keywords of `architecture`, a dict for all sizes or a list with one dict per size.
    lr: initial learning rate, which decays to 0 along half a cosine; "auto": found for each size by a short search.
    epoch: number of passes over the data.
    batch_size: number of rows on which a network is fitted to a target of this space.
    automatic_batch_size_scale: instead of batch_size, the number of rows per trainable parameter of the target; 1 if
        neither is given.
    measure: the size of a member, to compare families at equal size.
    automatic_measurement_mode: used if measure is None: "information" (bits of all weights, see
        `expressivity.sizes.information`) or "parameters" (number of trainable parameters).
    mini_batch_size: number of rows per step.
    optimizer: `optimizer(parameters, lr=lr)` makes the optimiser.
    grad_clamp: each entry of the gradient is clamped to +-grad_clamp; None: not clamped.
    train: training routine used instead of the built-in one; train(network, inputs, outputs) returns the fitted
        network. lr, lr_candidates, epoch, mini_batch_size, optimizer and grad_clamp do not apply to it.
    lr_candidates: learning rates that the search tries, for all sizes; None: from 0.0003 to 1, and beyond the end at
        which the best one is. Only [lr]: nothing is searched.
    frozen_base: the parameters that are not trained, such as those of a pretrained network, are the same ones in all
        fits to a target, and in both families if these have the same ones.
    legacy: use the defaults of the first version of this comparison: AdamW with lr 0.001, rows by the measure (in bits
        or not), and a warning where measures are unequal.
    spellings: legacy spellings of these keywords, such as mesurement.

    Raises ExpressivityError if an argument is invalid.
    """

    def __init__(
        self,
        input_size: int | tuple[int, ...],
        name: str | None = None,
        architecture: Callable[..., nn.Module] | list | None = None,
        parameters: dict | list[dict] | None = None,
        lr: float | str | list[float | str] | None = None,
        epoch: int | list[int] = 10,
        batch_size: int | list[int] | None = None,
        automatic_batch_size_scale: float | list[float] | None = None,
        measure: float | list[float] | None = None,
        automatic_measurement_mode: str | None = DEFAULT_MODE,
        mini_batch_size: int | list[int] = 16,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        grad_clamp: float | list[float] | None = 1.0,
        train: Routine | list[Routine] | None = None,
        lr_candidates: list[float] | None = None,
        frozen_base: bool = False,
        legacy: bool = False,
        **spellings,
    ):
        given = {"measure": measure, "automatic_measurement_mode": automatic_measurement_mode}
        chosen = {name: value for name, value in given.items() if value != DEFAULT_MODE}
        known = {**dict.fromkeys(inspect.signature(ArchitecturalSpace).parameters), **chosen}
        given |= translated(spellings, SPELLINGS, known, f"space {name!r}")
        defaults, mode = LEGACY_DEFAULTS if legacy else DEFAULTS, given["automatic_measurement_mode"]
        self.input_size = tuple(input_size) if isinstance(input_size, list | tuple) else (input_size,)
        self.name = name or getattr(architecture, "__name__", None) or "unnamed"
        self.architecture, self.parameters = architecture, {} if parameters is None else parameters
        self.lr = defaults["lr"] if lr is None else lr
        self.epoch, self.mini_batch_size = epoch, mini_batch_size
        self.batch_size, self.automatic_batch_size_scale = batch_size, automatic_batch_size_scale
        self.measure = given["measure"]
        self.automatic_measurement_mode = MODES.get(mode, mode) if isinstance(mode, str) else mode
        self.optimizer = defaults["optimizer"] if optimizer is None else optimizer
        self.grad_clamp, self.train, self.lr_candidates = grad_clamp, train, lr_candidates
        self.frozen_base, self.legacy = frozen_base, legacy
        self._check()
        self.count = self._count()
        self._measures = {}

    def __repr__(self) -> str:
        return f"ArchitecturalSpace({self.name!r}, {self.count or 'any number of'} sizes)"

    def at(self, key: str, index: int):
        """The value of `key` at the size `index`."""
        value = getattr(self, key)
        return value[index] if isinstance(value, list) else value

    def build(self, index: int) -> nn.Module:
        """Build a new network of this size, drawn from torch's global generator. Raises ExpressivityError."""
        maker = self.at("architecture", index)
        keywords = self.at("parameters", index)
        try:
            network = redrawn(maker) if isinstance(maker, nn.Module) else maker(**keywords)
        except Exception as error:  # a user's class may raise anything
            call = f"{getattr(maker, '__name__', type(maker).__name__)}({_formatted(keywords)})"
            raise ExpressivityError(f"{self.where(index)}: {call} failed: {type_and_line(error)}") from error
        if not isinstance(network, nn.Module):
            made = type(network).__name__
            raise ExpressivityError(f"{self.where(index)}: architecture returned {made}; it must return an nn.Module")
        self._check_tensors(network, index)
        return network

    def measured(self, index: int) -> float:
        """The measure of a member: the given one, else the automatic one."""
        given = self.at("measure", index)
        return self._automatic(self.automatic_measurement_mode, index) if given is None else given

    def rows(self, index: int) -> int:
        """Number of rows on which networks are fitted to a target of this size."""
        given, scale = self.at("batch_size", index), self.at("automatic_batch_size_scale", index)
        if given is not None and scale is None:
            return given
        unit = self.measured(index) if self.legacy else self._automatic("parameters", index)
        return max(2, round((1 if scale is None else scale) * unit))

    @property
    def unit(self) -> str:
        """What the measure counts."""
        return UNITS[self.automatic_measurement_mode] if self.measure is None else "given measure"

    def where(self, index: int) -> str:
        """The space and size, as the beginning of an error message."""
        return f"space {self.name!r}, size {index}"

    def _automatic(self, mode: str, index: int) -> int:
        key = mode, index
        if key not in self._measures:
            with seeded("measure", index):
                self._measures[key] = COUNTED[mode](self.build(index))
        if self._measures[key] == 0:
            raise ExpressivityError(f"{self.where(index)}: the network has no trainable parameters")
        return self._measures[key]

    def _check_tensors(self, network: nn.Module, index: int) -> None:
        """Raise ExpressivityError for a network that cannot be measured and fitted."""
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            if is_lazy(tensor):
                raise ExpressivityError(
                    f"{self.where(index)}: {name} has no shape before the first input; give a class that is not lazy, "
                    "and its sizes"
                )
            if tensor.is_complex():
                raise ExpressivityError(f"{self.where(index)}: {name} is complex; networks must be real")

    def _check(self) -> None:
        what = f"space {self.name!r}"
        if not isinstance(self.name, str):
            raise ExpressivityError(f"{what}: name must be a string")
        makers = self.architecture if isinstance(self.architecture, list) else [self.architecture]
        if not makers or not all(callable(maker) for maker in makers):  # modules are callable, too
            raise ExpressivityError(
                f"{what}: architecture is {self.architecture!r}; it must be a class, a callable or a list of modules"
            )
        if any(isinstance(maker, nn.Module) for maker in makers) and self.parameters:
            raise ExpressivityError(
                f"{what}: parameters cannot be set when architecture is a list of modules; give a class instead"
            )
        keywords = self.parameters if isinstance(self.parameters, list) else [self.parameters]
        if not all(isinstance(each, dict) for each in keywords):
            raise ExpressivityError(f"{what}: parameters must be a dict of keywords or a list of dicts, one per size")
        for key, allowed in ALLOWED.items():
            value = getattr(self, key)
            values = value if isinstance(value, list) else [value]
            needed = key in ("lr", "epoch", "mini_batch_size")
            searched = key == "lr" and AUTO in values
            numbers = [each for each in values if each != AUTO] if searched else values
            each_is([each for each in numbers if needed or each is not None], allowed, f"{what}: {key}")
        each_is(list(self.input_size), COUNT, f"{what}: input_size")
        if self.measure is None and self.automatic_measurement_mode not in list(COUNTED):
            raise ExpressivityError(
                f"{what}: automatic_measurement_mode is {self.automatic_measurement_mode!r}; "
                f"allowed: {', '.join(COUNTED)}, or give measure"
            )
        if self.batch_size is not None and self.automatic_batch_size_scale is not None and not self.legacy:
            raise ExpressivityError(f"{what}: batch_size and automatic_batch_size_scale are both set; set one")
        if "lr" in getattr(self.optimizer, "keywords", {}):
            raise ExpressivityError(
                f"{what}: optimizer already sets lr; set lr of the space instead, which decays during a fit"
            )
        routines = self.train if isinstance(self.train, list) else [self.train] if self.train is not None else []
        for key, values in {"optimizer": [self.optimizer], "train": routines}.items():
            for value in values:
                if not callable(value) and not (value is None and isinstance(self.train, list)):
                    raise ExpressivityError(f"{what}: {key} is {value!r}; it must be callable")
        for key in ("frozen_base", "legacy"):
            if not isinstance(getattr(self, key), bool):
                raise ExpressivityError(f"{what}: {key} is {getattr(self, key)!r}; it must be true or false")
        self._check_search(what)

    def _check_search(self, what: str) -> None:
        candidates = self.lr_candidates
        if candidates is not None:
            if not isinstance(candidates, list | tuple) or not candidates:
                raise ExpressivityError(f"{what}: lr_candidates is {candidates!r}; it must be a list of learning rates")
            each_is(candidates, POSITIVE, f"{what}: lr_candidates")
        if self.train is not None and AUTO in (self.lr if isinstance(self.lr, list) else [self.lr]):
            raise ExpressivityError(
                f"{what}: lr is {AUTO!r}, but train is a routine of its own, which gets no learning rate; leave lr out"
            )

    def _count(self) -> int | None:
        """Number of sizes; None if no argument is a list."""
        keys = ("architecture", "parameters", "train", *ALLOWED)
        lengths = {key: len(getattr(self, key)) for key in keys if isinstance(getattr(self, key), list)}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{key} {length}" for key, length in lengths.items())
            raise ExpressivityError(
                f"space {self.name!r}: lists have different lengths: {shown}; each must have one item per size"
            )
        if 0 in lengths.values():
            raise ExpressivityError(
                f"space {self.name!r}: {', '.join(lengths)} is an empty list; it must have one item per size"
            )
        return next(iter(lengths.values()), None)


def _formatted(keywords: dict) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in keywords.items())

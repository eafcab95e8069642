"""What a configuration file names: architectures, optimisers, training routines, criteria and laws.

A file may come from somebody else. It names what this project offers; any other importable object is looked up only if
the command line says --trust_modules, and is called only if it can be what the key needs.
"""

import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import NamedTuple

import torch
from torch import nn
from torch.distributions import Laplace, Normal, Uniform

from common.errors import type_and_line
from expressivity.criteria import CRITERIA
from expressivity.errors import ExpressivityError
from expressivity.networks import ARCHITECTURES

OWN_MODULES = ("expressivity.networks", "t3nsor")  # whose classes need no trust


class Kind(NamedTuple):
    """What a key may name.

    known: built-in names.
    base: the class that a named class derives from; None: a class is wrong here.
    positional, keywords: what a named function is called with; None: keywords of the file.
    returns: the class of what it returns; None: anything.
    needed: all that in words.
    """

    known: dict[str, Callable]
    base: type | None
    positional: int
    keywords: tuple[str, ...] | None
    returns: type | None
    needed: str


LAWS = {
    "normal": functools.partial(Normal, loc=0.0, scale=1.0),
    "uniform": functools.partial(Uniform, low=-(3**0.5), high=3**0.5),
    "laplace": functools.partial(Laplace, loc=0.0, scale=0.5**0.5),
}
OPTIMIZERS = {name: each for name, each in vars(torch.optim).items() if inspect.isclass(each)}
NAMED = {
    "architecture": Kind(
        ARCHITECTURES, nn.Module, 0, None, nn.Module, "a class of torch modules, or a function that returns one"
    ),
    "optimizer": Kind(
        {name: each for name, each in OPTIMIZERS.items() if issubclass(each, torch.optim.Optimizer)},
        torch.optim.Optimizer,
        1,
        ("lr",),
        torch.optim.Optimizer,
        "a class of torch optimizers, or a function (parameters, lr) that returns one",
    ),
    "train": Kind({}, None, 3, (), None, "a function (network, inputs, outputs) that returns the fitted network"),
    "criterion": Kind(
        CRITERIA, nn.Module, 2, (), torch.Tensor, "a class of torch modules, or a function (output, target)"
    ),
    "law": Kind(LAWS, None, 0, None, None, "an object with a method sample(shape), or its class"),
}
WITH_OPTIONS = ("optimizer", "criterion", "law")  # may be an object with the key "name" and its options


def named(given: object, kind: str, what: str, trusted: bool):
    """Return what a file names.

    given: a built-in name, or module:name; for WITH_OPTIONS also an object with the key "name" and its options.
    kind: a key of NAMED.
    what: the key to name in errors.
    trusted: whether modules of others may be imported.
    Raises ExpressivityError for what is unknown, needs trust, cannot be imported, or is something else.
    """
    if kind in WITH_OPTIONS and isinstance(given, dict):
        options = {name: value for name, value in given.items() if name != "name"}
        found = named(given.get("name"), kind, what, trusted)
        return functools.partial(found, **options) if options else found
    kind_of = NAMED[kind]
    known = kind_of.known
    if not isinstance(given, str) or (":" not in given and given not in known):
        near = get_close_matches(str(given), known, 1) or list(known)[:9]
        hint = f"one of {', '.join(near)}, or " if near else ""
        raise ExpressivityError(f"{what} is {given!r}; it must be {hint}an importable object, written module:name")
    if given in known:
        return known[given]
    module, _, attribute = given.partition(":")
    own = module in OWN_MODULES and attribute.isidentifier()
    if not (own or trusted or _is_missing(module)):
        raise ExpressivityError(
            f"{what} is {given!r}; a file may name classes of {' and '.join(OWN_MODULES)} only: to import and run "
            "other code, add --trust_modules to the command line, if you trust the file"
        )
    try:
        found = functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
    except Exception as error:  # a user's module may raise anything
        raise ExpressivityError(f"{what} is {given!r}, which cannot be imported: {type_and_line(error)}") from error
    if kind == "law":
        fits = not own and callable(getattr(found, "sample", None)) and not _of_python(found)
    elif inspect.isclass(found):
        fits = kind_of.base is not None and issubclass(found, kind_of.base)
    else:
        fits = not own and _is_routine(found, kind_of)
    if not fits:
        name = getattr(found, "__qualname__", None) or repr(found)[:40]
        raise ExpressivityError(f"{what} is {given!r}, the {type(found).__name__} {name}; it must be {kind_of.needed}")
    return found


def _is_missing(module: str) -> bool:
    """Return True if a module cannot be imported anyway; finding that out imports nothing."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is None
    except (ImportError, ValueError):  # ValueError: no name of a module
        return False


def _is_routine(found: object, kind: Kind) -> bool:
    """Return True for a callable that is not one of Python's own, such as subprocess.run, and can be called so."""
    if not callable(found) or _of_python(found):
        return False
    try:
        signature = inspect.signature(found)
        if kind.keywords is not None:
            signature.bind(*[None] * kind.positional, **dict.fromkeys(kind.keywords))
    except (TypeError, ValueError):  # it takes other arguments, or does not tell
        return False
    returned = signature.return_annotation
    if kind.returns is None:
        return True
    told = inspect.isclass(returned) and returned is not inspect.Signature.empty
    return issubclass(returned, kind.returns) if told else returned not in (None, "None")


def _of_python(found: object) -> bool:
    """Return True for what a module of the standard library defines."""
    module = getattr(found, "__module__", None) or type(found).__module__
    return module.partition(".")[0] in sys.stdlib_module_names


def made(given: object, kind: str, trusted: bool):
    """What a file names as its criterion or law, made with its options, of which lists become tensors of real numbers.

    Raises ExpressivityError as `named` does, and if it cannot be made.
    """
    found = named(given, kind, kind, trusted)
    maker, options = getattr(found, "func", found), getattr(found, "keywords", {})
    try:
        options = {name: _tensor(each) if isinstance(each, list) else each for name, each in options.items()}
        if kind == "criterion" and not inspect.isclass(maker):
            return functools.partial(maker, **options) if options else maker
        if kind == "law" and not callable(maker):
            return maker
        return maker(**options)
    except Exception as error:  # a user's class may raise anything
        raise ExpressivityError(f"{kind} is {given!r}, which cannot be made: {type_and_line(error)}") from error


def _tensor(numbers: list) -> torch.Tensor:
    """A list of a file as a tensor; a file may write 1 for 1.0."""
    tensor = torch.tensor(numbers)
    return tensor if tensor.dtype == torch.bool else tensor.to(torch.get_default_dtype())

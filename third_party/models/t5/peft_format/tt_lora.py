"""TT-LoRA as `t3nsor_peft.TTLoraConfig` has it: the same cores by other names, with the shapes of each layer."""

import itertools
import math
from collections.abc import Iterator

from adapters import AdapterConfig
from adapters.tt_lora import branch_shape
from common.errors import ConfigError
from t3nsor.shapes import MODES
from third_party.models.t5.peft_format.method import (
    TARGETS,
    Content,
    PeftMethod,
    Sizes,
    Tensors,
    one_of,
    scale_in,
    scale_out,
    whole,
)

CORES = "branch.tt.weight.cores."
Shape = tuple[list[int], list[int]]
LayerShapes = dict[str, Shape]


def _keys_out(config: AdapterConfig) -> Content:
    for key in ("share_cores", "cores_nonlinearity"):
        if config.is_set(key):
            raise ConfigError(
                f"{key} is {getattr(config, key)!r}, which peft's TT-LoRA lacks; save it with save_adapter"
            )
    svd = config.TTLoRA_init == "svd"
    if svd and config.tensor_ring:
        raise ConfigError("TTLoRA_init is 'svd' and tensor_ring is true; peft's TT-LoRA starts trains from an SVD only")
    return {
        **scale_out(config, config.tt_rank),
        "ring": config.tensor_ring,
        "freeze_cores": config.freeze_cores,
        "init_weights": "svd" if svd else True,
    }


def _layer_keys(config: AdapterConfig, tensors: Tensors, sizes: Sizes, target_modules: list[str]) -> Content:
    listed = {}
    for path, cores in _cores(tensors).items():
        rows, columns = _factors(cores)
        if (math.prod(rows), math.prod(columns)) != sizes[path]:
            raise ConfigError(f"tt_pad is true and pads {path}, which peft's TT-LoRA lacks; save it with save_adapter")
        ranks = [core[0] for core in cores]
        listed[path] = [rows, columns, ranks if config.tensor_ring else ranks[1:]]
    return {"layer_shapes": listed}


def _keys_in(content: Content, tensors: Tensors) -> Content:
    one_of(content, "ring", (True, False, None))
    rank, started = whole(content, "r", 8), any(".branch.start." in name for name in tensors)
    keys = {
        "use_TTLoRA": True,
        "tt_rank": rank,
        "tensor_ring": bool(content.get("ring")),
        "freeze_cores": content.get("freeze_cores"),
        "TTLoRA_init": "svd" if started else None,
        **scale_in(content),
    }
    shapes = {path: _factors(cores) for path, cores in _cores(tensors).items()}
    for choice in _choices(shapes):
        if _chooses(keys | choice, shapes):
            return keys | choice
    raise ConfigError("layer_shapes: the shapes of the layers differ in a way that no tt_shape or auto_shape_mode has")


def _cores(tensors: Tensors) -> dict[str, list[list[int]]]:
    """Path of a layer -> the shapes of its cores, in their order."""
    found: dict[str, dict[int, list[int]]] = {}
    for name, tensor in tensors.items():
        path, separator, number = name.rpartition(f".{CORES}")
        if separator:
            if tensor.dim() != 4:
                raise ConfigError(f"{name} is {list(tensor.shape)}; a core has four dimensions")
            found.setdefault(path, {})[int(number)] = list(tensor.shape)
    return {path: [core for _, core in sorted(cores.items())] for path, cores in found.items()}


def _factors(cores: list[list[int]]) -> Shape:
    return [core[1] for core in cores], [core[2] for core in cores]


def _choices(shapes: LayerShapes) -> Iterator[Content]:
    """Keys that may have chosen these shapes, the likeliest first."""
    d = max(len(rows) for rows, _ in shapes.values())
    for mode, reverse, smaller in itertools.product(MODES, (False, True), (True, False)):
        options = {"auto_shape_mode": mode, "reverse_out_shape": reverse, "factorize_smaller_dim": smaller}
        yield from ({"tt_d": number, **options} for number in (d, "auto"))
    yield {"auto_shape_mode": "skewed"}
    yield {"tt_shape": list(next(iter(shapes.values())))}


def _chooses(keys: Content, shapes: LayerShapes) -> bool:
    try:
        config = AdapterConfig(**keys)
        chosen = [branch_shape(config, math.prod(rows), math.prod(columns)) for rows, columns in shapes.values()]
    except ValueError:  # keys that exclude each other, or a shape that does not fit all layers
        return False
    return all(
        (list(given[0]), list(given[1])) == (rows, columns)
        for given, (rows, columns) in zip(chosen, shapes.values(), strict=True)
    )


TT_LORA = PeftMethod(
    "use_TTLoRA",
    _keys_out,
    _keys_in,
    frozenset({"r", "d", "tt_shape", "auto_shape_mode", "ring", "freeze_cores", "layer_shapes", "init_weights"})
    | {"shapes_chosen_for"}
    | {"lora_alpha", "lora_dropout", "use_rslora", "bias", "layers_to_transform", "layers_pattern"}
    | TARGETS,
    {f"{CORES}*": "tt_lora_cores.core_*", "branch.start.cores.*": "tt_lora_start.core_*"},
    _layer_keys,
    package="t3nsor_peft",
)

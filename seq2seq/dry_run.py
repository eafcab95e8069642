"""What a run would train, said before any weight or data is loaded."""

import json
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from seq2seq.models import configuration_of, wrong_sizes_named
from seq2seq.runs import DRY_RUN, check_writable, write_json
from seq2seq.settings import Settings
from t3nsor import TTLinear, chosen_plans
from t3nsor.tensor_train import CoreChain
from third_party.models.t5 import T5ForConditionalGeneration
from utils import (
    cost_of_tasks,
    count_parameters,
    get_adapter_config,
    modify_model_after_init,
    parameters_by_component,
    print_num_parameters,
)


def dry_run(settings: Settings) -> dict:
    """Print the parameters, the tensor trains and the configuration; write the same as `dry_run.json`.

    The model is built on the meta device: with all its sizes, without values.
    """
    directory = Path(settings.training.output_dir)
    check_writable(directory)
    with wrong_sizes_named(), torch.device("meta"):
        model = T5ForConditionalGeneration(configuration_of(settings.model))
    modify_model_after_init(model, get_adapter_config(settings.given, tasks=[settings.data.task_name]))
    counts, trains = count_parameters(model), tensor_trains(model, rows_of(settings))
    components = [vars(row) for row in parameters_by_component(model)]
    content = {
        "method": settings.method,
        "trainable_parameters": counts["trainable"],
        "total_parameters": counts["total"],
        "backbone_parameters": counts["backbone"],
        "cost_of_8_tasks": cost_of_tasks(model),
        "components": components,
        "tensor_trains": trains,
        "configuration": {**settings.resolved(), "dry_run": False},
    }
    print_num_parameters(model)
    print_tensor_trains(trains, rows_of(settings))
    print(json.dumps(content["configuration"], indent=2, sort_keys=True))
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / DRY_RUN, content)
    return content


def rows_of(settings: Settings) -> int:
    """The most tokens that a layer of the encoder sees at once in training."""
    return settings.training.per_device_train_batch_size * settings.data.max_source_length


def tensor_trains(model, rows: int) -> list[dict]:
    """The tensor trains and rings of a model, like ones together, and how matrices would multiply `rows` tokens."""
    groups: dict[tuple, dict] = {}
    seen = set()
    for name, chain in model.named_modules():
        if not isinstance(chain, CoreChain) or chain in seen:
            continue
        seen.add(chain)
        owner = _owner(name)
        parent = model.get_submodule(name.rpartition(".")[0])
        activated = isinstance(parent, TTLinear) and parent.cores_nonlinearity is not None
        key = owner, chain.raw_shape, chain.ranks, chain.closed
        if key not in groups:
            groups[key] = {
                "part": owner,
                "count": 0,
                "kind": "ring" if chain.closed else "train",
                "shape": [list(side) for side in chain.raw_shape],
                "ranks": list(chain.ranks),
                "parameters": chain.numel(),
                **(_plans(chain, rows, beside=".branch" in name) if chain.is_matrix and not activated else {}),
            }
        groups[key]["count"] += 1
    return list(groups.values())


def _owner(name: str) -> str:
    """What a train belongs to: "down_sampler", "wi branch", "layer_norm", .."""
    parts = name.split(".")
    return f"{parts[parts.index('branch') - 1]} branch" if "branch" in parts else parts[-2]


def _plans(chain: CoreChain, rows: int, beside: bool) -> dict[str, str]:
    forward, backward = chosen_plans(chain, rows, beside=beside, device="cpu")
    return {"forward": str(forward), "backward": str(backward)}


def print_tensor_trains(trains: list[dict], rows: int) -> None:
    """One table; nothing where there are none."""
    if not trains:
        return
    table = Table(title=f"tensor trains, and how {rows:,} tokens would be multiplied", title_justify="left")
    for column in ("part", "shape", "ranks", "forward", "backward"):
        table.add_column(column)
    for column in ("parameters", "count"):
        table.add_column(column, justify="right")
    for row in trains:
        shape = " -> ".join("x".join(map(str, side)) for side in row["shape"])
        ranks = f"{row['kind']} {' '.join(map(str, row['ranks']))}"
        plans = row.get("forward", ""), row.get("backward", "")
        table.add_row(row["part"], shape, ranks, *plans, f"{row['parameters']:,}", str(row["count"]))
    Console().print(table)

"""Report what a run would train, without loading weights, and what it would read of the users' own files."""

import json
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from adapters.tt_basis import RandomBasis
from common.files import check_writable, write_json
from seq2seq.data.batches import load_texts, tasks_of_splits
from seq2seq.data.class_weights import check_class_weights
from seq2seq.data_report import data_report, print_data_report
from seq2seq.layout import DRY_RUN
from seq2seq.models import check_tasks, configuration_of, load_tokenizer, model_config_errors
from seq2seq.pipeline import needed_splits
from seq2seq.settings import Settings
from seq2seq.tokens import say_losses, tokenise_all, training_sources
from t3nsor import TTLinear, chosen_plans
from t3nsor.tensor_train import CoreChain
from third_party.models.t5.export import check_foldable
from third_party.models.t5.key_usage import adapted_and_read
from third_party.models.t5.parameters import (
    cost_of_tasks,
    count_parameters,
    parameters_by_component,
    print_num_parameters,
)


def dry_run(settings: Settings) -> dict:
    """Print the parameters, the tensor trains and the configuration, and write them to `dry_run.json`.

    The model is built on the meta device, which allocates no memory for values.
    """
    directory = Path(settings.training.output_dir)
    check_writable(directory)
    tasks = tasks_of_splits(settings.data, settings.training.split_seed)
    check_class_weights(settings.data, tasks["train"])
    with model_config_errors():
        config = configuration_of(settings.model)
    model, _ = adapted_and_read(config, settings.adapter)
    check_tasks(model, tasks)
    if settings.training.merge_and_export:
        check_foldable(model)
    data = data_report(read_data(settings, tasks)) if "file" in settings.data.all_tasks else None
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
        **({} if data is None else {"data": data}),
        "configuration": {**settings.resolved(), "dry_run": False},
    }
    print_num_parameters(model)
    print_tensor_trains(trains, rows_of(settings))
    if data is not None:
        print_data_report(data)
    print(json.dumps(content["configuration"], indent=2, sort_keys=True))
    write_json(directory / DRY_RUN, content, sort_keys=True, key="output_dir")
    return content


def read_data(settings: Settings, tasks: dict) -> dict:
    """Return the rows of the users' own files, with their tokens, in each split that the run uses."""
    splits = [split for split in needed_splits(settings.training) if "file" in settings.data.tasks_of(split)]
    own = {split: [task for task in tasks[split] if task.name == "file"] for split in splits}
    texts = load_texts(own, splits, settings.data, settings.training.seed, prefix=False)
    rows = tokenise_all(texts, load_tokenizer(settings.model, training_sources(texts)), settings)
    say_losses(rows)
    return rows


def rows_of(settings: Settings) -> int:
    """Return the largest number of tokens that an encoder layer sees at once in training."""
    return settings.training.per_device_train_batch_size * settings.data.max_source_length


def tensor_trains(model, rows: int) -> list[dict]:
    """Return the tensor trains and rings of a model, grouped by shape, and the plans for multiplying `rows` tokens."""
    groups: dict[tuple, dict] = {}
    counted = set()
    for name, owner, chain, tensors in _chains(model):
        parent = model.get_submodule(name.rpartition(".")[0])
        activated = isinstance(parent, TTLinear) and parent.cores_nonlinearity is not None
        planned = chain.is_matrix and not activated
        key = owner, chain.raw_shape, chain.ranks, chain.closed
        if key not in groups:
            groups[key] = {
                "part": owner,
                "kind": "ring" if chain.closed else "train",
                "shape": [list(side) for side in chain.raw_shape],
                "ranks": list(chain.ranks),
                **(_plans(chain, rows, beside=".branch" in name) if planned else {}),
                "count": 0,
                "parameters": 0,
                "trainable": 0,
            }
        row = groups[key]
        row["count"] += 1
        for tensor in set(tensors) - counted:  # count shared cores once
            row["parameters"] += tensor.numel()
            row["trainable"] += tensor.numel() if tensor.requires_grad else 0
        counted.update(tensors)
    return list(groups.values())


def _chains(model):
    """Yield (name, owner, tensor train or ring, parameters); for a random basis, the first of its trains."""
    for name, module in model.named_modules():
        if isinstance(module, CoreChain):
            yield name, _owner(name), module, list(module.parameters())
        elif isinstance(module, RandomBasis):
            yield name, _owner(name), module.first(), list(module.parameters())


def _owner(name: str) -> str:
    """Return the part of the model that a train belongs to: "down_sampler", "wi branch", "layer_norm", .."""
    parts = name.split(".")
    if "branch" not in parts:
        return parts[-2]
    inside = {"start": " start", "A": " A", "B": " B", "basis": " basis"}
    return f"{parts[parts.index('branch') - 1]} branch" + "".join(inside.get(part, "") for part in parts)


def _plans(chain: CoreChain, rows: int, beside: bool) -> dict[str, str]:
    forward, backward = chosen_plans(chain, rows, beside=beside, device="cuda" if torch.cuda.is_available() else "cpu")
    return {"forward": str(forward), "backward": str(backward)}


def print_tensor_trains(trains: list[dict], rows: int) -> None:
    """Print the trains as a table; print nothing if there are none."""
    if not trains:
        return
    table = Table(title=f"tensor trains, and how {rows:,} tokens would be multiplied", title_justify="left")
    for column in ("part", "shape", "ranks", "forward", "backward"):
        table.add_column(column)
    for column in ("count", "parameters", "trainable"):
        table.add_column(column, justify="right")
    for row in trains:
        shape = " -> ".join("x".join(map(str, side)) for side in row["shape"])
        ranks = f"{row['kind']} {' '.join(map(str, row['ranks']))}"
        plans = row.get("forward", ""), row.get("backward", "")
        table.add_row(
            row["part"], shape, ranks, *plans, *(f"{row[key]:,}" for key in ("count", "parameters", "trainable"))
        )
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)  # in a file, nothing is cut

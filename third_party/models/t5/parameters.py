"""Parameter counts of an adapted model: in total, by component, and as the cost of several tasks."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from transformers.models.t5.modeling_t5 import T5LayerNorm

from adapters import AdapterPart, PerTask
from adapters.intrinsic import AdaptedNorm
from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration


def count_parameters(model: T5ForConditionalGeneration) -> dict[str, int]:
    """Number of parameters, tied ones once: "trainable", "total", and "backbone" (before adapters were attached)."""
    parameters = list(model.parameters())
    return {
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "total": sum(p.numel() for p in parameters),
        "backbone": model.backbone_size,
    }


@dataclass
class Component:
    """A row of the parameter table."""

    name: str
    trainable: int = 0
    total: int = 0


COMPONENTS = ("adapters", "norms", "biases", "prompts", "head", "rest of the backbone")


def parameters_by_component(model: T5ForConditionalGeneration) -> list[Component]:
    """Count the parameters of each component; shared and tied ones count once, a tied embedding as the head."""
    home = dict.fromkeys(model.lm_head.parameters(recurse=False), "head")
    for module in model.modules():
        if isinstance(module, T5LayerNorm | AdaptedNorm):
            home |= dict.fromkeys(module.parameters(recurse=False), "norms")
        elif isinstance(module, AdapterPart):
            home |= dict.fromkeys(module.parameters(), module.component)
    table = {name: Component(name) for name in COMPONENTS}
    for parameter in model.parameters():
        row = table[home.get(parameter, COMPONENTS[-1])]
        row.total += parameter.numel()
        row.trainable += parameter.numel() if parameter.requires_grad else 0
    return list(table.values())


def cost_of_tasks(model: T5ForConditionalGeneration, tasks: int = 8) -> float:
    """Return the parameters needed for several tasks, as a multiple of the backbone's.

    tasks: number of tasks; each needs its own trained parameters, and all share the rest.
    """
    counts, share = count_parameters(model), {}
    for module in model.modules():
        if isinstance(module, PerTask):  # the model may have adapters for several tasks already
            share |= {p: 1 / len(module) for p in module.parameters()}
    per_task = sum(share.get(p, 1) * p.numel() for p in model.parameters() if p.requires_grad)
    return (counts["total"] - counts["trainable"] + tasks * per_task) / counts["backbone"]


def print_num_parameters(model: T5ForConditionalGeneration) -> None:
    """Print the parameters by component, their share of the backbone, and the cost of 8 tasks."""
    table = Table(title="parameters", title_justify="left")
    table.add_column("component")
    for column in ("trainable", "total", "trainable, % of the backbone"):
        table.add_column(column, justify="right")
    rows = parameters_by_component(model)
    all_rows = Component("all", sum(row.trainable for row in rows), sum(row.total for row in rows))
    for row in [*(row for row in rows if row.total), all_rows]:
        share = 100 * row.trainable / model.backbone_size
        table.add_row(row.name, f"{row.trainable:,}", f"{row.total:,}", f"{share:.4f}")
    console = Console()
    console.print(table)
    console.print(
        f"8 tasks cost {cost_of_tasks(model):.4f} times the backbone's {model.backbone_size:,}", highlight=False
    )

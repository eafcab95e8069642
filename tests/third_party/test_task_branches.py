"""Branches beside linear layers, of which each task has its own."""

import json

import pytest
import torch

from adapters import is_merged, merge_adapters
from common.checksums import KEY
from common.errors import ConfigError
from tests.methods import BESIDE, adapted, config_for, logits, moved
from third_party.models.t5 import T5ForConditionalGeneration
from third_party.models.t5.adapter_description import DESCRIPTION, read_description
from third_party.models.t5.parameters import cost_of_tasks, count_parameters
from utils import modify_model_after_init

TASKS = ("a", "b.c", "d")
SHARED = {"adapters_per_task": False}


def task_logits(model, batch, task="b.c"):
    with torch.no_grad():
        return model(**batch, task=task).logits


def trained(model) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}


@pytest.mark.parametrize("case", BESIDE)
def test_a_task_trains_its_own_branches_alone(case, shallow_config, batch):
    model = adapted(shallow_config, config_for(case, tasks=TASKS)).train()
    others = [task_logits(model, batch, task) for task in ("a", "d")]
    model(**batch, task="b.c").loss.backward()
    own, of_others = (
        {p for name, p in trained(model).items() if f".branches.{task}." in name} for task in ("b_c", "a")
    )
    assert own
    assert all(parameter.grad is not None for parameter in own)
    shared = own & of_others
    assert not any(parameter.grad is not None for parameter in of_others - shared)
    with torch.no_grad():
        for parameter in own - shared:
            parameter += 1
    assert all(torch.equal(task_logits(model, batch, task), old) for task, old in zip(("a", "d"), others, strict=True))
    assert bool(shared) == ("shared" in case)  # its first cores belong to all tasks


@pytest.mark.parametrize("case", ["use_TTLoRA", "tt_cross_layer", "both"])
def test_a_model_of_one_task_is_what_it_was(case, shallow_config):
    one, common = (adapted(shallow_config, config_for(case, **keys)) for keys in ({}, {"tasks": TASKS, **SHARED}))
    assert list(one.state_dict()) == [name.replace(".shared.", ".task.") for name in common.state_dict()]
    assert not any(".branches." in name for name in one.state_dict())


def test_parameters_and_the_cost_of_tasks(shallow_config):
    costs, counts = [], []
    for tasks in (("a",), TASKS):
        model = modify_model_after_init(T5ForConditionalGeneration(shallow_config), config_for("use_LoRA", tasks=tasks))
        counts.append(count_parameters(model)["trainable"])
        costs.append(cost_of_tasks(model))
    assert counts[1] == 3 * counts[0]
    assert costs[0] == pytest.approx(costs[1])


@pytest.mark.parametrize("among", ["layers and tasks", "tasks"])
def test_shared_cores(among, tiny_config):
    keys = {"tasks": TASKS, "share_cores": "first", "share_cores_among": among}
    named = trained(adapted(tiny_config, config_for("use_TTLoRA", **keys)))
    first = {name: core for name, core in named.items() if name.endswith("cores.0")}
    layers = {name.split(".branch.")[0] for name in first}
    assert len(first) == 3 * len(layers)
    assert len(set(first.values())) == (2 if among == "layers and tasks" else len(layers))  # wi and wo differ
    assert len({core for name, core in named.items() if name.endswith("cores.1")}) == len(first)


def test_trains_across_layers_are_those_of_one_task(tiny_config):
    named = trained(adapted(tiny_config, config_for("tt_cross_layer", tasks=TASKS)))
    cores = {name: core for name, core in named.items() if name.endswith("cores.layer")}
    assert len(set(cores.values())) == 3
    assert len({core for name, core in cores.items() if ".branches.a." in name}) == 1


def test_a_basis_is_common_to_the_tasks(tiny_config):
    model = adapted(tiny_config, config_for("tt_basis", tasks=TASKS))
    cores = {p for name, p in model.named_parameters(remove_duplicate=False) if name.endswith("basis.core_0")}
    assert len(cores) == 2  # wi and wo


def test_they_stay_parallel_in_evaluation_and_cannot_be_folded(shallow_config, batch, tmp_path):
    model = adapted(shallow_config, config_for("use_LoRA", tasks=TASKS))
    assert not is_merged(model)
    assert set(merge_adapters(model).values()) == {"each task has a branch of its own"}
    assert torch.equal(task_logits(model, batch), task_logits(model.train(), batch))
    with pytest.raises(ConfigError, match="cannot be folded into its weight: each task has a branch of its own"):
        model.merge_and_export(tmp_path)
    with pytest.raises(ValueError, match="name one of: a, b.c, d"):
        model(**batch)
    with model.adapters_disabled():
        expected = logits(model, batch)
    model.detach_adapters()
    assert torch.equal(logits(model, batch), expected)


@pytest.fixture
def base(tiny_t5):
    return T5ForConditionalGeneration.from_pretrained(tiny_t5)


@pytest.mark.parametrize("case", ["use_TTLoRA", "use_TTLoRA shared", "tt_cross_layer", "tt_basis", "both"])
def test_checkpoints(case, base, tiny_t5, batch, tmp_path):
    model = moved(modify_model_after_init(base, config_for(case, tasks=TASKS))).eval()
    model.save_adapter(tmp_path)
    loaded = T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert loaded.task_switch.tasks == TASKS
    for task in TASKS:
        assert torch.equal(task_logits(loaded, batch, task), task_logits(model, batch, task))


def saved_by_an_older_version(model, directory):
    """Save adapters whose tasks share the branches as up to version 0.1.0: adapters_per_task was true all the same."""
    model.save_adapter(directory)
    path = directory / DESCRIPTION
    content = json.loads(path.read_text())
    del content[KEY]
    content["adapter_config"]["adapters_per_task"] = True
    path.write_text(json.dumps(content))


def test_older_files_whose_tasks_share_branches_are_loaded_as_such(base, batch, tmp_path):
    model = moved(modify_model_after_init(base, config_for("use_LoRA", tasks=TASKS, **SHARED))).eval()
    saved_by_an_older_version(model, tmp_path)
    assert read_description(tmp_path).adapter_config == model.adapter_config
    loaded = T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert loaded.task_switch.tasks == ("shared",)
    assert torch.equal(logits(loaded, batch), logits(model, batch))
    loaded.detach_adapters()
    loaded.attach_adapters(config_for("use_LoRA", tasks=TASKS))
    with pytest.raises(ConfigError, match="another configuration than the model's: adapters_per_task is False"):
        loaded.load_adapter(tmp_path)


def test_older_files_of_both_kinds_are_refused(base, tmp_path):
    model = modify_model_after_init(base, config_for("both", tasks=TASKS, **SHARED))
    saved_by_an_older_version(model, tmp_path)
    with pytest.raises(
        ConfigError, match="0.1.0, with adapters for each of a, b.c, d but branches that they share"
    ) as e:
        T5ForConditionalGeneration.from_pretrained(tmp_path)
    assert "\n" not in str(e.value)


def test_a_task_may_be_called_like_a_method_of_a_module(shallow_config, batch):
    model = adapted(shallow_config, config_for("use_LoRA", tasks=("keys", "b")))
    assert task_logits(model, batch, "keys").isfinite().all()

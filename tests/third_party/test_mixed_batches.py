"""Batches whose rows belong to several tasks, and what the tasks of a model have in common."""

import pytest
import torch
from transformers import GenerationConfig

from common.errors import ConfigError
from tests.methods import AFTER, BESIDE, NORMS, adapted, config_for

TASKS = ("a", "b.c", "d")
ROWS = ["b.c", "a", "b.c"]


def grads(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("case", [*AFTER, *BESIDE, "both"])
def test_each_row_runs_under_its_own_task(case, tiny_config, batch):
    model = adapted(tiny_config, config_for(case, tasks=TASKS))
    with torch.no_grad():
        alone = {task: model(**batch, task=task).logits for task in set(ROWS)}
        together = model(**batch, task=ROWS).logits
    for row, task in enumerate(ROWS):
        assert torch.allclose(together[row], alone[task][row], atol=1e-5)
    assert not torch.allclose(alone["a"], alone["b.c"], atol=1e-3)


@pytest.mark.parametrize("case", ["tensor_train_adapters", "use_TTLoRA"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_rows_one_by_one(checkpointing, case, tiny_config, batch):
    """With checkpointing the blocks run again in the backward pass, outside the call that named the tasks."""
    model = adapted(tiny_config, config_for(case, tasks=TASKS)).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model(**batch, task=ROWS).loss.backward()
    together = grads(model)
    model.zero_grad()
    for row, task in enumerate(ROWS):
        one = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        (model(**one, task=task).loss / len(ROWS)).backward()
    one_by_one = grads(model)
    assert together.keys() == one_by_one.keys()
    assert not [name for name in together if ".d." in name]
    assert all(torch.allclose(together[name], one_by_one[name], atol=1e-6) for name in together)


@pytest.mark.parametrize("case", ["adapters", "ia3"])
def test_generation_has_tasks_by_row_too(case, tiny_config, batch):
    model = adapted(tiny_config, config_for(case, tasks=TASKS))
    ids = batch["input_ids"]
    together = model.generate(ids, task=ROWS, max_new_tokens=4, min_new_tokens=4)
    alone = {task: model.generate(ids, task=task, max_new_tokens=4, min_new_tokens=4) for task in set(ROWS)}
    assert all(torch.equal(together[row], alone[task][row]) for row, task in enumerate(ROWS))


@pytest.mark.parametrize("case", ["tensor_train_adapters", "use_TTLoRA all"])
@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 3, "num_return_sequences": 2},
        {"num_beams": 2, "use_cache": False},
        {"generation_config": GenerationConfig(num_beams=3, decoder_start_token_id=0, pad_token_id=0)},
    ],
)
def test_beams_and_returned_sequences_have_the_task_of_their_row(options, case, tiny_config, batch):
    model = adapted(tiny_config, config_for(case, tasks=TASKS))
    lengths = {"max_new_tokens": 4, "min_new_tokens": 4}
    together = model.generate(batch["input_ids"], task=ROWS, **options, **lengths)
    alone = {task: model.generate(batch["input_ids"], task=task, **options, **lengths) for task in set(ROWS)}
    each = len(together) // len(ROWS)
    assert each == options.get("num_return_sequences", 1)
    for row, task in enumerate(ROWS):
        rows = slice(row * each, (row + 1) * each)
        assert torch.equal(together[rows], alone[task][rows])


@pytest.mark.parametrize("case", ["adapters", "use_LoRA"])
def test_sampled_sequences_have_the_task_of_their_row(case, tiny_config, batch):
    """Of the single most likely token: other samples of a batch and of its single rows differ."""
    model = adapted(tiny_config, config_for(case, tasks=TASKS))
    options = {"do_sample": True, "top_k": 1, "num_return_sequences": 3, "max_new_tokens": 4, "min_new_tokens": 4}
    together = model.generate(batch["input_ids"], task=ROWS, **options)
    alone = {task: model.generate(batch["input_ids"], task=task, **options) for task in set(ROWS)}
    assert len(together) == 9
    assert all(torch.equal(together[3 * k : 3 * k + 3], alone[task][3 * k : 3 * k + 3]) for k, task in enumerate(ROWS))


@pytest.mark.parametrize("case", ["adapters", "use_TTLoRA all"])
def test_encoder_outputs_can_be_passed_with_beams(case, tiny_config, batch):
    model = adapted(tiny_config, config_for(case, tasks=TASKS))
    options = {"num_beams": 3, "max_new_tokens": 4, "min_new_tokens": 4}
    expected = model.generate(batch["input_ids"], task=ROWS, **options)
    with torch.no_grad(), model.task_switch.pinned(ROWS):
        states = model.encoder(batch["input_ids"])
    assert torch.equal(model.generate(encoder_outputs=states, task=ROWS, **options), expected)


def test_names_for_less_than_the_batch_are_refused_with_beams(tiny_config, batch):
    model = adapted(tiny_config, config_for("adapters", tasks=TASKS))
    with pytest.raises(ValueError, match="task has 1 names, but the batch has 3 rows"):
        model.generate(batch["input_ids"], task=["a"], num_beams=2, max_new_tokens=2)


def test_wrong_tasks_are_refused(tiny_config, batch):
    model = adapted(tiny_config, config_for("adapters", tasks=TASKS))
    with pytest.raises(ValueError, match="task is 'e'; the model has adapters for: a, b.c, d"):
        model(**batch, task=["a", "e", "a"])
    with pytest.raises(ValueError, match="task has 2 names, but the batch has 3 rows"):
        model(**batch, task=["a", "d"])
    with pytest.raises(ValueError, match="name one of: a, b.c, d"):
        model(**batch)


def test_all_tasks_may_train_the_same_adapters(tiny_config, batch):
    own, common = (
        adapted(tiny_config, config_for("adapters", tasks=TASKS, adapters_per_task=each)) for each in (True, False)
    )
    sizes = [sum(p.numel() for name, p in model.named_parameters() if ".adapters." in name) for model in (own, common)]
    assert sizes[0] == 3 * sizes[1]
    assert common.task_switch.tasks == ("shared",)
    assert common(**batch).loss.isfinite()


@pytest.mark.parametrize("case", [NORMS[0], "bitfit", "prefix_tuning"])
def test_other_parts_are_common_to_the_tasks(case, tiny_config, batch):
    model = adapted(tiny_config, config_for(case, tasks=TASKS))
    assert model.task_switch.tasks == ("shared",)
    assert model(**batch).loss.isfinite()


def test_cores_common_to_the_tasks_of_a_layer_or_to_the_whole_model(tiny_config):
    def first_cores(among):
        keys = {"tasks": TASKS, "share_cores": "first", "share_cores_among": among}
        model = adapted(tiny_config, config_for("tensor_train_adapters", **keys))
        named = dict(model.named_parameters(remove_duplicate=False))
        cores = {name: core for name, core in named.items() if name.endswith("sampler.weight.cores.0")}
        last = {id(core) for name, core in named.items() if name.endswith("weight.cores.1")}
        return cores, last

    whole, last = first_cores("layers and tasks")
    assert len({id(core) for core in whole.values()}) == 2  # one for down, one for up
    assert len(last) == len(whole)  # the others are each adapter's own
    layered, _ = first_cores("tasks")
    assert len({id(core) for core in layered.values()}) == len(layered) // len(TASKS)
    sites = {name.split(".adapters.")[0] for name in layered}
    for site in sites:
        assert len({id(core) for name, core in layered.items() if name.startswith(site + ".")}) == 2


@pytest.mark.parametrize(
    ("case", "keys", "words"),
    [
        ("adapters", {"tasks": ("a.b", "a_b")}, "gives two the same name"),
        ("tensor_train_adapters", {"share_cores_among": "tasks"}, "needs share_cores"),
        (
            "bitfit",
            {"share_cores_among": "tasks", "share_cores": "first"},
            "only adapters after sublayers and branches",
        ),
    ],
)
def test_contradictions(case, keys, words):
    with pytest.raises(ConfigError, match=words):
        config_for(case, **keys)

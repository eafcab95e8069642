"""The number of parameters that every method trains on T5-base, exactly: built on the meta device, without weights."""

import copy
from functools import cache

import pytest
import torch

import t3nsor
from adapters import AdapterConfig
from seq2seq.settings import load_settings
from tests.conftest import CONFIGS, ROOT
from tests.methods import CASES, adapted, config_for
from third_party.models.t5 import T5Config, T5ForConditionalGeneration
from third_party.models.t5.parameters import cost_of_tasks, count_parameters, parameters_by_component
from utils import modify_model_after_init

# The published methods on T5-base with 32,128 rows of embedding. SAID: 257 of the 20,000 scale one tensor each.
PUBLISHED = {
    "baseline": 222_903_552,
    "adapters": 1_855_104,
    "pfeiffer_adapters": 951_360,
    "adapters_drop": 1_101_984,
    "low_rank_adapters": 161_664,
    "phm_adapters": 398_976,
    "compacter": 161_728,
    "compacter++": 104_704,
    "bitfit": 282_496,
    "intrinsic": 20_000,
    "intrinsic_said": 20_000,
    "prompt_tuning_random_init": 76_800,
    "prompt_tuning_tokens_init": 76_800,
    "controls/norms_only": 47_616,
    # By hand: l for keys and values of 36 attentions, and for the 24 inner feed-forward states.
    "ia3": 36 * 2 * 768 + 24 * 3072,
    "prefix_tuning": 36 * 2 * 10 * 768,
    "lora": 48 * 8 * (768 + 3072),
    "scale_norm": 62,
    "kronecker_layer_norm": 62 * 4 * (12 + 16) + 16,
}
NORMS_OF_BASE = 62 * 768


@cache
def t5_base(**sizes) -> T5ForConditionalGeneration:
    with torch.device("meta"):
        return T5ForConditionalGeneration(T5Config.from_shape("t5-base", **sizes))


def count_on_base(settings: dict, **sizes) -> int:
    model = copy.deepcopy(t5_base(**sizes))
    return count_parameters(modify_model_after_init(model, AdapterConfig(**settings)))["trainable"]


def keys_of(name: str) -> dict:
    return load_settings(str(ROOT / f"configs/{name}.json"), [])[0].adapter.to_dict()


@pytest.mark.parametrize("name", PUBLISHED)
def test_exact_trainable_parameters_on_t5_base(name):
    assert count_on_base(keys_of(name)) == PUBLISHED[name]


def test_the_table_of_the_ancestor_at_its_vocabulary():
    """Baseline and bitfit depend on the embedding's rows; the ancestor resized it to the tokenizer's 32,100."""
    assert count_on_base(keys_of("baseline"), vocab_size=32_100) == 222_882_048
    assert count_on_base(keys_of("bitfit"), vocab_size=32_100) == 282_468
    assert count_on_base(keys_of("compacter"), vocab_size=32_100) == 161_728


def test_variants_of_bitfit_on_t5_base():
    bitfit, embedding = keys_of("bitfit"), 32_128 * 768
    assert count_on_base({**bitfit, "freeze_bitfit_lm_head": False}) == 282_496 + embedding
    assert count_on_base({**bitfit, "unfreeze_lm_head": True}) == 282_496 + embedding
    assert count_on_base({**bitfit, "freeze_bitfit_lm_head_all": True}) == 282_496 - 32_128
    assert count_on_base({"freeze_backbone": True, "unfreeze_lm_head": True}) == embedding


DOWN, UP, HIDDEN = ((8, 8, 12), (4, 6, 8)), ((4, 6, 8), (8, 8, 12)), 192
TT = t3nsor.parameter_count
TENSOR_TRAINS = {
    "tt_adapter": lambda: 48 * (2 * TT(((24, 32), (12, 16)), 16) + HIDDEN + 768) + NORMS_OF_BASE,
    "tr_adapter": lambda: 48 * (TT(DOWN, 4, ring=True) + TT(UP, 4, ring=True) + HIDDEN + 768) + NORMS_OF_BASE,
    "tt_adapter_single": lambda: 48 * (TT((768, 768), 8, 3) + 768) + NORMS_OF_BASE,
    "tt_adapter_expansion": lambda: 48 * (TT((768, 1536), 4, 3) + TT((1536, 768), 4, 3) + 1536 + 768) + NORMS_OF_BASE,
    "tt_adapter_shared_cores": lambda: (
        48 * (TT(DOWN, 8) + TT(UP, 8) - 8 * 4 * 8 - 4 * 8 * 8 + TT((4, 6, 8), 2) + TT((8, 8, 12), 2))
        + 2 * 8 * 4 * 8
        + NORMS_OF_BASE
    ),
    "tt_lora": lambda: 48 * TT((768, 3072), 8, 2) + NORMS_OF_BASE,
    "tt_lora_svd": lambda: 48 * TT((768, 3072), 8, 2) + NORMS_OF_BASE,
    "tr_lora": lambda: 48 * TT((768, 3072), 4, 2, ring=True) + NORMS_OF_BASE,
    "tt_lora_separate": lambda: 48 * (TT((768, 16), 4, 2) + TT((16, 3072), 4, 2)) + NORMS_OF_BASE,
    "tt_lora_attention": lambda: 72 * 8 * (768 + 768) + NORMS_OF_BASE,
    "tt_cross_layer": lambda: TT((768, 3072), 8, 2) + 8 * 8 * (24 + 2) + NORMS_OF_BASE,
    "tt_basis": lambda: 48 * 64 + NORMS_OF_BASE,
    "tt_layer_norm": lambda: 62 * TT((8, 8, 12), 2),
}


@pytest.mark.parametrize("name", TENSOR_TRAINS)
def test_tensor_trains_on_t5_base_train_what_t3nsor_counts(name):
    assert count_on_base(keys_of(name)) == TENSOR_TRAINS[name]()


@pytest.mark.parametrize("path", [path for path in CONFIGS if path[8:-5] not in PUBLISHED | TENSOR_TRAINS])
def test_the_other_configurations_on_t5_base_train_less_than_3_percent(path):
    adapter = load_settings(str(ROOT / path), [])[0].adapter
    trained = count_on_base(adapter.to_dict())
    if adapter.freeze_backbone and not adapter.lora_dense:
        assert trained < 0.03 * PUBLISHED["baseline"]


@pytest.mark.parametrize("case", CASES)
def test_the_meta_device_counts_what_is_there(shallow_config, case):
    counts = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            model = modify_model_after_init(T5ForConditionalGeneration(shallow_config), config_for(case))
        counts.append((count_parameters(model), [vars(row) for row in parameters_by_component(model)]))
    assert counts[0] == counts[1]


def test_tasks_cost_the_same_whether_they_are_in_the_model_or_not(tiny_config):
    costs = []
    for tasks in (("a",), ("a", "b")):
        config = config_for("adapters", tasks=tasks, unfreeze_layer_norms=True)
        model = modify_model_after_init(T5ForConditionalGeneration(tiny_config), config)
        alone = sum(p.numel() for p in model.parameters() if p.requires_grad)
        costs.append(cost_of_tasks(model) - (count_parameters(model)["total"] - alone) / model.backbone_size)
    assert costs[0] == pytest.approx(costs[1])


def test_the_backbone_is_counted_once_its_tensors_are_tied():
    for config in (None, config_for("use_ScaleNorm")):
        model = T5ForConditionalGeneration.from_pretrained("t5-nano", adapter_config=config)
        assert count_parameters(model)["backbone"] == model.backbone_size == 9_991_424


def test_components_add_up(tiny_config):
    model = adapted(tiny_config, config_for("both"))
    rows = {row.name: row for row in parameters_by_component(model)}
    counts = count_parameters(model)
    assert sum(row.trainable for row in rows.values()) == counts["trainable"]
    assert sum(row.total for row in rows.values()) == counts["total"]
    assert rows["norms"].trainable == rows["norms"].total == 12
    assert rows["head"].total == 120 * 32
    assert rows["biases"].trainable == 2 * (4 * 32 + 48 + 32 + 2 * 32) + 2 * (8 * 32 + 48 + 32 + 3 * 32) + 2 * 32 + 120

"""The keys that choose each method, and the exact errors of keys that contradict each other."""

import pytest

from adapters import METHODS, AdapterConfig
from common.errors import ConfigError
from tests.methods import CASES, FLAGS, config_for


@pytest.mark.parametrize("case", CASES)
def test_the_flag_chooses_the_method(case):
    config, method = config_for(case), CASES[case][0]
    assert config.methods[FLAGS[method].metadata["site"]] == method
    assert method in METHODS
    assert config.freeze_backbone


def test_a_serial_adapter_beside_lora_runs_only_when_asked_for():
    both = {"train_task_adapters": True, "tensor_train_adapters": True, "use_TTLoRA": True}
    assert list(AdapterConfig(**both).methods.values()) == ["use_TTLoRA"]
    kept = AdapterConfig(**both, keep_serial_adapter=True)
    assert set(kept.methods.values()) == {"use_TTLoRA", "tensor_train_adapters"}


ON = {"train_task_adapters": True}
SVD = {"use_TTLoRA": True, "TTLoRA_init": "svd"}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({**ON, "tensor_train_adapters": True, "low_rank_adapters": True}, "only one method can attach"),
        (
            {"use_LoRA": True, "ia3": True},
            "use_LoRA and ia3 are both set, but only one method can attach beside a linear layer",
        ),
        ({"use_TTLoRA": True, "ttlora_separate": True, "tt_cross_layer": True}, "only one method can attach"),
        ({"use_ScaleNorm": True, "use_TTLayerNorm": True}, "only one method can attach instead of a layer norm"),
        ({"tensor_train_adapters": True}, "set train_task_adapters to true"),
        ({**ON, "tensor_train_single": True}, "set tensor_train_adapters to true"),
        ({"ttlora_separate": True}, "set use_TTLoRA to true"),
        ({"tt_basis": 4}, "tt_basis is 4 but use_TTLoRA is not"),
        ({"lora_dense": True}, "set use_LoRA to true"),
        ({"intrinsic_said": True}, "set intrinsic_model to true"),
        ({"intrinsic_model": True, "bitfit": True}, "intrinsic_model and bitfit are both set"),
        (
            {**ON, "add_adapter_in_self_attention": False, "add_adapter_in_feed_forward": False},
            "no sublayer gets an adapter",
        ),
        ({**ON, "freeze_backbone": False}, "freeze_backbone is false"),
        ({"tt_rank": 0}, "tt_rank is 0"),
        ({"tt_d": -1}, "tt_d is -1"),
        ({"task_reduction_factor": 0}, "task_reduction_factor is 0"),
        ({"low_rank_rank": 0}, "low_rank_rank is 0"),
        ({"lora_alpha": 0.0}, "lora_alpha is 0.0"),
        ({"lora_dropout": 1.0}, "lora_dropout is 1.0"),
        ({"lora_targets": ["wi", "w0"]}, "lora_targets contains 'w0'; allowed: wi, wo, q"),
        ({"lora_targets": []}, "lora_targets is empty"),
        ({"non_linearity": "rely"}, "non_linearity is 'rely'; allowed: gelu,"),
        ({"cores_nonlinearity": "rely"}, "cores_nonlinearity is 'rely'; allowed: gelu,"),
        ({"freeze_cores": [3]}, "freeze_cores contains 3; 3 cores have the indices -3 to 2"),
        ({"share_cores": [0, -4]}, "share_cores contains -4"),
        ({**SVD, "cores_nonlinearity": "relu"}, "cores_nonlinearity is 'relu'; TTLoRA_init"),
        ({**SVD, "share_cores": "first"}, "share_cores is 'first'; TTLoRA_init"),
        ({**SVD, "ttlora_separate": True}, "ttlora_separate has nothing to decompose"),
        ({**SVD, "tt_cross_layer": True}, "tt_cross_layer has its own initialisation"),
        (
            {"use_TTLoRA": True, "tt_basis": 2, "freeze_cores": "first"},
            "freeze_cores is 'first'; tt_basis does not support it: set it to null",
        ),
        (
            {"use_TTLoRA": True, "ttlora_separate": True, "tt_shape": [[4], [6]]},
            "ttlora_separate does not support it",
        ),
        ({"ia3": True, "lora_targets": ["q"]}, "ia3 does not support it"),
        (
            {"intrinsic_model": True, "unfreeze_lm_head": True},
            "unfreeze_lm_head is true; intrinsic_model does not support it: set it to false",
        ),
        ({"bitfit": True, "freeze_bitfit_lm_head": False, "freeze_bitfit_lm_head_all": True}, "the first includes"),
        ({"ScaleNorm_scale": float("nan")}, "ScaleNorm_scale is nan"),
        ({"tasks": ("a.b", "a_b")}, "gives two the same name"),
        ({"auto_shape_mode": "skewed", "tt_d": 3}, "tt_d is 3; with auto_shape_mode skewed it must be 2"),
        ({"freeze_cores": [0, 1, -1]}, "freeze_cores is [0, 1, -1], all of 3 cores; leave at least one"),
        (
            {"freeze_cores": "last", "cores_nonlinearity": "relu"},
            "cores_nonlinearity is 'relu', behind which no core may start as zero: leave the last core to be trained",
        ),
        ({"TTLayerNorm_d": 21}, "TTLayerNorm_d is 21; it must be at most 20"),
        ({"task_expansion_factor": -1}, "task_expansion_factor is -1; it must be at least 1"),
        ({"ttlora_reduction_factor": 0}, "ttlora_reduction_factor is 0; it must be at least 1"),
        ({"auto_shape_mode": "skewed", "tt_d": 2, "reverse_out_shape": True}, "reverse_out_shape is true; with"),
        ({"tt_d": "auto", "factorize_smaller_dim": False}, "factorize_smaller_dim is false; with tt_d 'auto'"),
        ({"auto_shape_mode": "up"}, "auto_shape_mode is 'up'; allowed: ascending"),
        ({"tt_shape": [[2, 3], [4]]}, "tt_shape: shape [2, 3] -> [4]"),
        ({"tasks": ()}, "tasks is empty"),
    ],
)
def test_conflicts_name_the_key_and_what_is_allowed(keys, words):
    with pytest.raises(ConfigError) as error:
        AdapterConfig(**keys)
    assert words in str(error.value)
    assert "\n" not in str(error.value)

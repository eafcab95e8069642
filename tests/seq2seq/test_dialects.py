"""Files of Compacter and of its tensor-train fork: what they load as, and that it computes what it did there."""

import json
import re

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu

from adapters import Place, SharedParts, TaskSwitch, build
from adapters.sites import AFTER_SUBLAYER, BESIDE_LINEAR, INSTEAD_OF_NORM
from common.errors import ConfigError
from run_seq2seq import main
from seq2seq.dialects import (
    COMPACTER_KEYS,
    DROPPED,
    OUR_KEYS,
    RENAMED,
    RENAMED_VALUES,
    RULES,
    TRANSLATED,
    TTCOMPACTER_KEYS,
)
from seq2seq.settings import known_keys, load_settings
from seq2seq.translation import OLDER
from t3nsor import auto_shape, parameter_count
from tests.conftest import ROOT, TINY_RUN
from tests.seq2seq.fork_files import FORK, loaded

SHARED = ROOT.parent / "shared" / "experiments"
EXPECTED = SHARED / "expected.json"
FILES = sorted(json.loads(EXPECTED.read_text())) if EXPECTED.exists() else []
NORMS_OF_T5_BASE = 62 * 768
ON_LINEARS = {"use_bias": False, "tensor_train_single": False}


@pytest.mark.skipif(not FILES, reason="the users' files are not here")
@pytest.mark.parametrize("name", FILES)
def test_every_file_of_the_users_means_the_same(name, run_main, tmp_path):
    expected = json.loads(EXPECTED.read_text())[name]["trainable"]
    path, text = SHARED / name, (SHARED / name).read_text()
    if text.rstrip().endswith(",\n}"):  # JSON allows no such comma: an error, as it was there
        status, errors, _ = run_main(path, dry_run=True)
        assert (status, len(errors)) == (2, 1)
        assert re.search(r"line \d+ column \d+ \(char \d+\); no comma may stand before }$", errors[0])
        path = tmp_path / name
        path.write_text(text.rstrip().removesuffix(",\n}") + "\n}")
    status, errors, out = run_main(path, dry_run=True)
    assert status == 0, errors
    report = json.loads((out / "dry_run.json").read_text())
    if "tensor_train_adapters" in text:
        derived = derived_count(json.loads(path.read_text()))
        expected = derived if expected is None else expected
        assert derived == expected
    assert report["trainable_parameters"] == expected
    assert len(errors) <= 2
    assert sum("ignored" in line for line in errors) <= 1
    assert sum("read as a" in line for line in errors) <= 1


def derived_count(values: dict) -> int:
    """What a file of the fork trains on T5-base: 24 blocks, 62 norms, and 72 attentions with a q and a v."""
    get = {"tt_d": 3, "tt_rank": 8, "use_bias": True, "TTBias_rk": 2, "TTLayerNorm_rk": 2, **values}.get

    def train(n: int, m: int, whole: bool = False) -> int:
        d = get("tt_d")
        factors = [(1,) * (d - 1) + (size,) if whole and size < max(n, m) else auto_shape(size, d) for size in (n, m)]
        return parameter_count(
            (factors[0], factors[1][::-1] if get("reverse_out_shape") else factors[1]), get("tt_rank")
        )

    def bias(n: int) -> int:
        return parameter_count(auto_shape(n, 3), get("TTBias_rk")) if get("use_TTBias") else n * get("use_bias")

    def branch(n: int, m: int) -> int:
        if get("use_LoRA"):
            return get("tt_rank") * (n + m)
        return train(n, n // 32) + train(n // 32, m) if get("ttlora_separate") else train(n, m)

    of_a_norm = parameter_count(auto_shape(768, 3), get("TTLayerNorm_rk")) if get("use_TTLayerNorm") else 768
    norms = 62 * (1 if get("use_ScaleNorm") else of_a_norm) if get("unfreeze_layer_norms") else 0
    if get("use_LoRA") or get("use_TTLoRA"):
        return 24 * (branch(768, 3072) + branch(3072, 768)) + 72 * branch(768, 768) + norms
    if get("tensor_train_single"):
        return 48 * (train(768, 768) + bias(768)) + norms
    inner = 768 * get("task_expansion_factor", 0) or 768 // get("task_reduction_factor", 16)
    whole = not get("factorize_smaller_dim", True)
    return 48 * (train(768, inner, whole) + train(inner, 768, whole) + bias(inner) + bias(768)) + norms


COUNTS = {
    "adapters": ({"tt_rank": 8}, 234_624 + NORMS_OF_T5_BASE),
    "left out": ({"tt_rank": ..., "tt_d": ..., "task_expansion_factor": ...}, 234_624 + NORMS_OF_T5_BASE),
    "expansion": ({"tt_rank": 8, "task_expansion_factor": 1}, 626_688 + NORMS_OF_T5_BASE),
    "LoRA": ({"use_LoRA": True, **ON_LINEARS}, 589_824 + NORMS_OF_T5_BASE),
    "TTLoRA": ({"use_TTLoRA": True, **ON_LINEARS}, 100_608 + NORMS_OF_T5_BASE),
    # inner widths 24 and 96; per encoder block wi 224, wo 344, q and v 176 each, and 352 more per decoder block
    "separate": (
        {"use_TTLoRA": True, "ttlora_separate": True, "tt_rank": 1, "TTLoRA_init": "kaiming_zero", **ON_LINEARS},
        12 * (2 * (224 + 344 + 352) + 352) + NORMS_OF_T5_BASE,
    ),
    "dense": ({"use_LoRA": True, "lora_dense": True, **ON_LINEARS}, 48 * 768 * 3072 + 72 * 768**2 + NORMS_OF_T5_BASE),
    "TTLayerNorm": ({"tt_d": 5, "use_TTLayerNorm": True, "TTLayerNorm_rk": 7}, 50_112 + 62 * 532),
    "ScaleNorm": ({"tt_d": 5, "use_ScaleNorm": True, "ScaleNorm_scale": 1.0}, 50_112 + 62),
    "frozen ScaleNorm": ({"tt_d": 5, "use_ScaleNorm": True, "unfreeze_layer_norms": False}, 50_112),
    "frozen TTLayerNorm": ({"tt_d": 5, "use_TTLayerNorm": True, "unfreeze_layer_norms": False}, 50_112),
    "both norms": ({"tt_d": 5, "use_ScaleNorm": True, "use_TTLayerNorm": True}, 50_112 + 62 * 72),
    "TTBias": ({"tt_d": 5, "use_TTBias": True, "TTBias_rk": 3}, 20_592 + NORMS_OF_T5_BASE),
    "single": ({"tensor_train_single": True, "tt_rank": 1}, 49_920 + NORMS_OF_T5_BASE),
    # 8 cores of the down matrix: 12*24*2, 8*1*4, 8*1*2; up: 24*12*2, 1*8*4, 1*8*2; biases 24 and 768
    "smaller dimension whole": (
        {"factorize_smaller_dim": False, "auto_shape_mode": "descending"},
        48 * (2 * (576 + 32 + 16) + 792) + NORMS_OF_T5_BASE,
    ),
    # defaults of Compacter: a bottleneck of 768 / 16, and a LayerNorm behind the adapter
    "dense adapters": (
        {"tensor_train_adapters": False, "task_reduction_factor": ..., "add_layer_norm_after_adapter": ...},
        48 * (2 * 768 * 48 + 48 + 768 + 2 * 768) + NORMS_OF_T5_BASE,
    ),
}


@pytest.mark.parametrize("case", COUNTS)
def test_files_of_the_fork_train_as_many_parameters_as_there(case, fork, run_main):
    keys, count = COUNTS[case]
    status, errors, out = run_main(fork(**keys), dry_run=True)
    assert status == 0, errors
    report = json.loads((out / "dry_run.json").read_text())
    assert report["trainable_parameters"] == count
    assert len(errors) == 2
    assert errors[0].startswith("warning: read as a ttcompacter file: ")


def chain(x: torch.Tensor, layer: nn.Module, activation=None) -> torch.Tensor:
    """x times the cores of a TT-matrix, one after the other, with the activation behind every one."""
    cores = list(layer.weight.cores)
    state = x.reshape(len(x), *(core.shape[1] for core in cores), 1)
    for core in cores:  # the first input factor goes, the output factor and the rank come last
        state = torch.tensordot(state, core, dims=([1, state.dim() - 1], [1, 0]))
        state = state if activation is None else activation(state)
    return state.reshape(len(x), -1)


def gelu_new(x: torch.Tensor) -> torch.Tensor:
    return gelu(x, approximate="tanh")


def at_random(module: nn.Module) -> nn.Module:
    """The module in double precision, with normally distributed parameters."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.normal_()
    return module


X = torch.randn(5, 768, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("activation", [None, "gelu_new"])
def test_adapters_compute_what_they_did_in_the_fork(fork, activation):
    settings, _ = loaded(fork(cores_nonlinearity=activation))
    adapter, f = at_random(build(settings.adapter, AFTER_SUBLAYER, 768, SharedParts())), activation and gelu_new
    down, up = adapter.down_sampler, adapter.up_sampler
    expected = chain(gelu_new(chain(X, down, f) + down.bias), up, f) + up.bias
    assert torch.allclose(adapter(X), expected, rtol=1e-6)


@pytest.mark.parametrize("activation", [None, "gelu_new"])
def test_the_single_train_is_linear_as_in_the_fork(fork, activation):
    settings, lines = loaded(fork(tensor_train_single=True, cores_nonlinearity=activation))
    adapter, f = at_random(build(settings.adapter, AFTER_SUBLAYER, 768, SharedParts())), activation and gelu_new
    assert torch.allclose(adapter(X), chain(X, adapter.sampler, f) + adapter.sampler.bias, rtol=1e-6)
    assert 'non_linearity "linear"' in lines[0]
    assert ("activate_last_core true" in lines[0]) == (activation is not None)


def test_branches_are_scaled_by_one_over_the_rank_as_in_the_fork(fork):
    linear, place = nn.Linear(768, 3072, bias=False), Place()

    def branch(**keys):
        settings, _ = loaded(fork(tt_rank=4, **keys))
        assert settings.adapter.lora_targets == ["wi", "wo", "q", "v"]
        return at_random(build(settings.adapter, BESIDE_LINEAR, linear, place, SharedParts()))

    lora, tt, dense = branch(use_LoRA=True), branch(use_TTLoRA=True), branch(use_LoRA=True, lora_dense=True)
    assert lora.A.shape == (4, 768)
    assert torch.allclose(lora.update(X), X @ lora.A.t() @ lora.B.t() / 4, rtol=1e-6)
    assert torch.allclose(tt.update(X), chain(X, tt.tt) / 4, rtol=1e-6)
    assert torch.allclose(dense.update(X), X @ dense.D.t() / 4, rtol=1e-6)
    separate = branch(use_TTLoRA=True, ttlora_separate=True)
    assert separate.A.out_features == 768 // 32
    assert torch.allclose(separate.update(X), chain(chain(X, separate.A), separate.B) / 4, rtol=1e-6)


@pytest.mark.parametrize("method", ["use_ScaleNorm", "use_TTLayerNorm"])
def test_norms_start_from_the_mean_whatever_else_is_set(fork, method):
    keys = {method: True, "use_LayerNorm_mean": True, "ScaleNorm_scale": 1.0, "TTLayerNorm_preinit": True}
    settings, _ = loaded(fork(**keys, TTLayerNorm_rk=5))
    norm = nn.RMSNorm(768)
    norm.variance_epsilon = 1e-6
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    layer = build(settings.adapter, INSTEAD_OF_NORM, norm, SharedParts(), TaskSwitch(["task"]))
    x = X.float()
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight.mean()
    assert torch.allclose(layer(x), expected, rtol=1e-6, atol=1e-6)


def test_lora_of_rank_1_2_4_are_three_sizes(run_main):
    """Where tt_rank is not the rank of LoRA, it does nothing, and that is said."""

    def dry_run(rank, **keys):
        status, errors, out = run_main("configs/lora.json", tt_rank=rank, dry_run=True, **keys)
        assert status == 0, errors
        return json.loads((out / "dry_run.json").read_text())["trainable_parameters"], errors

    for rank in (1, 2, 4):
        assert dry_run(rank) == (1_474_560, ["warning: not read by use_LoRA: tt_rank"])
        count, errors = dry_run(rank, dialect="ttcompacter")
        assert count == rank * 294_912
        assert f"lora_rank {rank} from tt_rank" in errors[0]


@pytest.mark.parametrize(
    ("keys", "overrides", "words"),
    [
        ({"dialect": "ttcompactor"}, [], 'dialect is "ttcompactor"; it must be one of compacter, ttcompacter, none'),
        ({"dialect": 3}, [], "dialect is 3; it must be"),
        ({"dialect": "compacter"}, [], "task_expansion_factor is a key of ttcompacter: set it to that"),
        ({"lora_targets": ["q"]}, [], "lora_targets is one of ours"),
        ({"use_LoRA": True}, ["--lora_rank", "4"], "in a ttcompacter file tt_rank means lora_rank: set only"),
        ({"use_LoRA": True, "lora_rank": 2, "dialect": "ttcompacter"}, [], "tt_rank and lora_rank are both set"),
        ({"experiment_name": "/abs"}, [], "experiment_name is '/abs'"),
        ({"task_expansion_factor": -1}, [], "task_expansion_factor is -1"),
    ],
)
def test_what_a_dialect_refuses(fork, keys, overrides, words):
    with pytest.raises(ConfigError) as error:
        load_settings(fork(**keys), overrides)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_which_language_a_file_is_in(fork):
    def first_words(*overrides, **keys):
        lines = load_settings(fork(**keys), list(overrides))[1].lines()
        return lines[0].split(" file: ")[0]

    assert first_words() == "read as a ttcompacter"
    assert first_words(experiment_name=...) == "read as a ttcompacter"
    only_compacter = {name: ... for name in FORK if name in TTCOMPACTER_KEYS | {"experiment_name", "project_name"}}
    assert first_words(**only_compacter) == "read as a compacter"
    no_adapters = {**only_compacter, "adapter_config_name": ..., "train_task_adapters": ...}
    assert first_words(**no_adapters, bitfit=True) == "read as a compacter"
    assert first_words(**no_adapters).startswith("evaluation_strategy is now called")
    assert first_words("--dialect", "none").startswith("evaluation_strategy is now called")
    assert first_words(adapter_config_name=...).startswith("evaluation_strategy is now called")
    assert first_words(adapter_config_name=..., dialect="ttcompacter") == "read as a ttcompacter"
    # what is named decides, and then our keys may be used beside the others
    settings, _ = loaded(fork(use_LoRA=True, lora_targets=["q"], dialect="ttcompacter"), "--lora_alpha", "8")
    assert (settings.adapter.lora_targets, settings.adapter.lora_alpha, settings.adapter.lora_rank) == (["q"], 8, 2)


def test_the_resolved_configuration_needs_no_dialect(fork, tmp_path):
    settings, _ = loaded(fork(use_LoRA=True, cores_nonlinearity="gelu_new", use_TTLayerNorm=True))
    path = tmp_path / "resolved.json"
    path.write_text(json.dumps(settings.resolved()))
    again, lines = loaded(str(path))
    assert again.resolved() == settings.resolved()
    assert again.adapter == settings.adapter
    assert not any("dialect" in line for line in lines)


def test_the_directory_is_that_of_the_experiment(fork):
    path = fork(task_name="cola", experiment_name="tt+d_7")
    assert loaded(path)[0].training.output_dir == "outputs/cola/tt+d_7"
    assert loaded(path, "--task_name", '["mrpc", "cola"]')[0].training.output_dir == "outputs/mrpc+cola/tt+d_7"
    assert loaded(path, "--output_dir", "elsewhere")[0].training.output_dir == "elsewhere"
    assert loaded(path, "--dialect", "none")[0].training.output_dir == "outputs/old"


def test_files_with_the_same_directory_do_not_replace_each_other(fork, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    keys = {**TINY_RUN, "max_train_samples": 8, "max_val_samples": 4, "max_test_samples": 4}
    overrides = [part for key, value in keys.items() for part in (f"--{key}", json.dumps(value))]
    for name in ("one", "two", "one"):  # the third starts the first again, as its file says
        assert main([fork(name, experiment_name=name, tt_rank=1, compute_time=False), *overrides]) == 0
    results = [tmp_path / f"outputs/vader-amazon/{name}/results.json" for name in ("one", "two")]
    assert [json.loads(path.read_text())["experiment_name"] for path in results] == ["one", "two"]
    assert not (tmp_path / "outputs/old").exists()


def test_the_page_on_migration_names_every_key_of_the_table():
    named = set(re.findall(r"\w+", (ROOT / "docs/migration.md").read_text()))
    read = {key for rules in RULES.values() for rule in rules for key in (*rule.defaults, *rule.instead, *rule.renamed)}
    assert {*OLDER, *(value for _, value in RENAMED_VALUES), *read} <= named


def test_the_table_names_keys_that_exist():
    known = set(known_keys())
    assert set(RENAMED.values()) <= known
    assert {key for _, meaning in TRANSLATED.values() for key in meaning(1)} <= known
    assert not OLDER & known
    assert COMPACTER_KEYS | TTCOMPACTER_KEYS - DROPPED - TRANSLATED.keys() <= known
    assert not OUR_KEYS & (COMPACTER_KEYS | TTCOMPACTER_KEYS)
    for rule in (rule for rules in RULES.values() for rule in rules):
        assert {*rule.when, *rule.unless, *rule.defaults, *rule.instead, *rule.renamed.values()} <= known

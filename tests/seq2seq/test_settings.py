import json
import re
import shutil
from dataclasses import MISSING, fields

import pytest
from transformers import Seq2SeqTrainingArguments

from common.errors import ConfigError
from common.json_settings import has_type, read_overrides
from common.keys import key_fields
from seq2seq.arguments import ModelArguments
from seq2seq.data.vader import read_set
from seq2seq.models import load_tokenizer
from seq2seq.settings import OWN_CLASSES, known_keys, load_settings, own_keys, transformers_keys
from seq2seq.training_arguments import TrainingArguments
from third_party.models.t5.configuration_t5 import resolve_name


def write(tmp_path, **values):
    path = tmp_path / "experiment_one.json"
    path.write_text(json.dumps({"use_cpu": True, **values}))
    return str(path)


def test_overrides_are_json_or_strings():
    arguments = ["--tt_rank", "4", "--name=x=y", "--tt_shape", "[[2, 3], [4, 5]]", "--seed=-1", "--flag", "null"]
    expected = {"tt_rank": 4, "name": "x=y", "tt_shape": [[2, 3], [4, 5]], "seed": -1, "flag": None}
    assert read_overrides(arguments, known_keys()) == expected


def test_file_then_overrides_then_defaults(tmp_path):
    path = write(tmp_path, train_task_adapters=True, tt_rank=3, learning_rate=1, num_train_epochs=2)
    settings, notes = load_settings(path, ["--tt_rank", "5", "--task_name", "mrpc"])
    assert (settings.adapter.tt_rank, settings.adapter.tt_d, settings.data.task_name) == (5, 3, "mrpc")
    assert settings.training.learning_rate == 1
    assert settings.training.experiment_name == "experiment_one"
    assert settings.training.output_dir == "outputs/experiment_one"
    assert not notes.lines()


def test_the_resolved_configuration_repeats_the_run(tmp_path):
    settings, _ = load_settings(write(tmp_path, train_task_adapters=True, learning_rate=0.5), [])
    resolved = settings.resolved()
    again, _ = load_settings(write(tmp_path, **resolved), [])
    assert again.resolved() == resolved
    assert again.adapter == settings.adapter


PUBLISHED_KEYS = {
    "do_train": True, "do_eval": True, "do_test": True, "warmup_steps": 500, "save_steps": 1000,
    "model_name_or_path": "t5-base", "tokenizer_name": "t5-base", "save_total_limit": 1,
    "per_device_train_batch_size": 100, "per_device_eval_batch_size": 100, "load_best_model_at_end": True,
    "metric_for_best_model": "average_metrics", "greater_is_better": True, "max_source_length": 128,
    "learning_rate": 3e-3, "output_dir": "outputs/x", "task_name": "mrpc", "eval_dataset_name": "mrpc",
    "test_dataset_name": "mrpc", "num_train_epochs": 20, "predict_with_generate": True,
    "add_layer_norm_before_adapter": False, "add_layer_norm_after_adapter": False, "train_task_adapters": False,
    "task_reduction_factor": 32, "task_expansion_factor": None, "non_linearity": "gelu_new", "unfreeze_lm_head": False,
    "unfreeze_layer_norms": True, "overwrite_output_dir": True, "add_adapter_in_self_attention": True,
    "add_adapter_in_feed_forward": True, "task_adapter_layers_encoder": [5, 6], "task_adapter_layers_decoder": None,
    "task_adapter_in_decoder": True, "hypercomplex_adapters": False, "hypercomplex_division": 4,
    "hypercomplex_nonlinearity": "glorot-uniform", "learn_phm": True, "normalize_phm_weight": False,
    "factorized_phm": True, "shared_phm_rule": True, "factorized_phm_rule": False, "shared_W_phm": False, "phm_rank": 1,
    "phm_c_init": "normal", "phm_init_range": 1e-4, "low_rank_adapters": False, "low_rank_w_init": "glorot-uniform",
    "low_rank_rank": 1, "bitfit": False, "freeze_bitfit_lm_head": True, "freeze_bitfit_lm_head_all": False,
    "prefix_tuning": False, "prefix_dim": 100, "init_prefix_from_vocab": False, "intrinsic_model": False,
    "intrinsic_said": False, "intrinsic_dim": 20000, "intrinsic_projection": "fastfood",
    "normalize_intrinsic_projections": False, "gradient_accumulation_steps": 2, "max_train_samples": 10,
    "max_val_samples": 10, "max_test_samples": 10, "data_seed": 42, "compute_time": True, "compute_memory": True,
    "print_num_parameters": True,
    "tensor_train_adapters": False, "tensor_train_single": False, "tt_rank": 8, "tt_d": 3,
    "tt_shape": [[8, 8, 12], [2, 3, 4]], "reverse_out_shape": False, "factorize_smaller_dim": True,
    "auto_shape_mode": "mixed", "cores_nonlinearity": None, "use_bias": True, "use_TTBias": False, "TTBias_rk": 2,
    "use_ScaleNorm": False, "ScaleNorm_scale": 1.0, "use_TTLayerNorm": False, "TTLayerNorm_rk": 2,
    "TTLayerNorm_preinit": False, "use_LayerNorm_mean": False, "use_LoRA": True, "lora_dense": False,
    "use_TTLoRA": False, "ttlora_separate": False, "TTLoRA_init": "kaiming", "freeze_cores": [0],
    "use_checkpointing": False, "experiment_name": "x", "project_name": "y", "log_to_wandb": False,
}  # fmt: skip
RENAMED_OR_GONE = {
    "evaluation_strategy": "epoch", "num_beams": 2, "max_seq_length": 128, "adapter_config_name": "adapter",
    "dataset_config_name": ["en"], "eval_dataset_config_name": ["en"], "test_dataset_config_name": ["en"],
    "split_validation_test": True, "pad_to_max_length": False, "ignore_pad_token_for_loss": True,
    "kronecker_prod": True,
}  # fmt: skip


def test_every_published_key_loads(tmp_path):
    path = write(tmp_path, **PUBLISHED_KEYS, **RENAMED_OR_GONE, dialect="none")
    settings, notes = load_settings(path, [])
    (line,) = notes.lines()
    assert set(RENAMED_OR_GONE) <= set(re.findall(r"\w+", line))
    for name, value in PUBLISHED_KEYS.items():
        assert settings.given[name] == value


def test_older_keys_load_with_one_warning(tmp_path):
    path = write(
        tmp_path, evaluation_strategy="epoch", max_seq_length=128, num_beams=2, eval_dataset_config_name=["en"]
    )
    settings, notes = load_settings(path, [])
    assert settings.training.eval_strategy == "epoch"
    assert settings.training.generation_num_beams == 2
    assert notes.lines() == [
        "evaluation_strategy is now called eval_strategy; num_beams is now called generation_num_beams; "
        "ignored: max_seq_length, eval_dataset_config_name"
    ]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tt_rnak": 4}, "unknown key tt_rnak; did you mean tt_rank?"),
        ({"qqqqqq": 4}, "unknown key qqqqqq"),
        ({"tasks": ["a"]}, "unknown key tasks"),
        ({"tt_rank": "4"}, 'tt_rank is "4"; it must be a whole number'),
        ({"tt_rank": 4.5}, "tt_rank is 4.5; it must be a whole number"),
        ({"tt_rank": True}, "tt_rank is true; it must be a whole number"),
        ({"learning_rate": "1e-3"}, 'learning_rate is "1e-3"; it must be a number'),
        ({"train_task_adapters": "yes"}, "it must be true or false"),
        ({"tt_shape": [[2, 3], [4, "5"]]}, "a list of lists of whole numbers"),
        ({"eval_strategy": "epochs"}, 'eval_strategy is "epochs"; it must be one of no, steps, epoch'),
        ({"dtype": "float64"}, 'dtype is "float64"; it must be one of "float32", "bfloat16", "float16"'),
        ({"model_config": 3}, "model_config is 3; it must be an object or a string or null"),
        ({"load_best_model_at_end": True}, "load_best_model_at_end"),
        ({"evaluation_strategy": "epoch", "eval_strategy": "no"}, "are the same key; set only eval_strategy"),
        ({"tt_rank": -4}, "tt_rank is -4"),
    ],
)
def test_wrong_keys_and_values(tmp_path, values, words):
    with pytest.raises(ConfigError) as error:
        load_settings(write(tmp_path, **values), [])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_flag_alone_is_true(tmp_path):
    settings, _ = load_settings(write(tmp_path), ["--dry_run", "--tt_rank", "4", "--bitfit"])
    assert settings.training.dry_run is True
    assert settings.adapter.bitfit is True
    assert settings.adapter.tt_rank == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tt_rank", "4"], "unexpected argument 'tt_rank'"),
        (["--tt_rank"], "--tt_rank has no value"),
        (["--tt_rank", "--do_train", "false"], "write --tt_rank VALUE"),
    ],
)
def test_wrong_overrides(tmp_path, arguments, words):
    with pytest.raises(ConfigError) as error:
        load_settings(write(tmp_path), arguments)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"{", "is not valid JSON"), (b"[1]", "contains a list"), (b"\xff\xfe", "cannot be read"), (None, "No such file")],
)
def test_wrong_files(tmp_path, content, words):
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load_settings(str(path), [])
    assert words in str(error.value)


def test_the_keys_of_transformers_are_known_without_importing_it():
    known = known_keys()
    assert transformers_keys().keys() == {f.name for f in fields(Seq2SeqTrainingArguments) if f.init}
    for name in transformers_keys().keys() - own_keys().keys():
        assert (transformers_keys()[name] is bool) == has_type(True, known[name]), name


def test_every_key_is_defined_once_with_help():
    fields = [field for cls in OWN_CLASSES for field in key_fields(cls)]
    assert len({field.name for field in fields}) == len(fields)
    assert all(field.metadata["help"] for field in fields)


@pytest.mark.parametrize("name", sorted(known_keys()))
def test_defaults_have_their_types(name):
    default = next(f.default for cls in (*OWN_CLASSES, TrainingArguments) for f in fields(cls) if f.name == name)
    if default is not MISSING:
        value = getattr(default, "value", default)
        assert has_type(value, known_keys()[name])


def test_a_published_name_is_a_model_with_its_own_tokenizer_and_as_model_config_only_sizes(tmp_path, monkeypatch):
    """Weights that are loaded by name never get a tokenizer that was trained on the run's text."""
    shutil.copytree(resolve_name("t5-nano"), tmp_path / "t5-base")
    monkeypatch.chdir(tmp_path)
    texts = read_set("nyt")[0][:500]
    for key in ("model_name_or_path", "tokenizer_name"):
        tokenizer = load_tokenizer(ModelArguments(**{key: "t5-base"}), texts)
        assert len(tokenizer) == 24_676, key
    trained = load_tokenizer(ModelArguments(model_config="t5-base", tokenizer_vocab_size=400), texts)
    assert len(trained) == 500

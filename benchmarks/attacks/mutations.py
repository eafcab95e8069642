"""Mutations of configuration files: of their values, their keys and their text."""

import json
import random

EXTREMES = (
    *(None, True, False, -1, 0, 1, 2, 7, 40, 1000, 2**31, 2**63, 10**30, 0.5, -0.5, 1e-320, 1e308, float("inf")),
    *(float("-inf"), float("nan"), "", " ", "8", "true", "null", "first", "a" * 5000, "\0", "\n", "é", "漢字", "🤖"),
    *("\ud800", "../x", "/dev/null", "/dev/zero", "~", "-1", "1e3", "--dry_run", "{}", "%s", "$HOME", "a\0b"),
    *([], {}, [[]], [0], [-1], [1, 2, 3], ["a"], [None], [True], ["first", "last"], [[2, 4], [4, 8]], [[1], [1, 2]]),
    *({"a": 1}, {"d_model": -1}, {"": None}, [1, "a", None], list(range(3000)), ["x"] * 3000, [[[[[[1]]]]]]),
)
OTHER_PROGRAMS = {
    "peft_type": "LORA",
    "lora_r": 8,
    "r": 8,
    "target_modules": ["q", "v"],
    "adapter_name_or_path": "x",
    "deepspeed": "ds.json",
    "fsdp": "full_shard",
    "fsdp_config": "x",
    "fp16": True,
    "bf16": True,
    "tf32": True,
    "optim": "adafactor",
    "optim_args": "a=b",
    "evaluation_strategy": "steps",
    "warmup_ratio": 0.1,
    "group_by_length": True,
    "no_cuda": True,
    "sharded_ddp": "simple",
    "hub_token": "secret",
    "push_to_hub": True,
    "report_to": ["all"],
    "torch_compile": True,
    "debug": "underflow_overflow",
    "eval_accumulation_steps": 0,
    "dataloader_persistent_workers": True,
    "predict_with_generate": False,
    "eval_do_concat_batches": False,
    "generation_num_beams": 0,
    "label_smoothing_factor": 2,
    "seed": -1,
    "data_seed": 2**40,
    "neftune_noise_alpha": "x",
    "accelerator_config": {"split_batches": True},
    "gradient_checkpointing_kwargs": {"use_reentrant": 3},
    "lr_scheduler_kwargs": {"num_cycles": "x"},
    "model_name_or_path": "google/t5-v1_1-small",
    "architectures": ["UMT5ForConditionalGeneration"],
}

# Values that may well be meant.
MEANT = {
    "tt_rank": [1, 2, 3, 5],
    "tt_d": [1, 2, 4, "auto", "fastest", None],
    "tt_pad": [True],
    "reverse_out_shape": [True],
    "auto_shape_mode": ["descending", "mixed", "skewed"],
    "factorize_smaller_dim": [False],
    "low_rank_rank": [1, 4],
    "lora_targets": [None, ["q", "v"], ["wi", "wo", "o"]],
    "task_adapter_in_decoder": [True, False],
    "tensor_ring": [True, False],
    "cores_nonlinearity": [None, "relu", "gelu"],
    "freeze_cores": [None, "first", "last", [0, 1]],
    "share_cores": [None, "first", [0]],
    "task_reduction_factor": [1, 3, 7, 32],
    "use_bias": [True, False],
    "use_TTBias": [True, False],
    "unfreeze_layer_norms": [True, False],
    "use_TTLayerNorm": [True, False],
    "bitfit": [True, False],
    "lora_rank": [1, 3],
    "lora_alpha": [None, 16],
    "lora_dropout": [0.0, 0.5],
    "TTLoRA_init": [None, "kaiming", "svd"],
    "task_adapter_layers_encoder": [None, [0], [], [5]],
    "learning_rate": [0.0, 1e-3, 10.0, 1e30],
    "max_grad_norm": [0.0, 1.0],
    "weight_decay": [0.0, 0.1, 5.0],
    "gradient_accumulation_steps": [1, 3],
    "gradient_checkpointing": [True, False],
    "warmup_steps": [0, 1000],
    "lr_scheduler_type": ["linear", "cosine", "constant"],
    "optim": ["adamw_torch", "adafactor", "sgd"],
    "per_device_train_batch_size": [1, 16],
    "max_train_samples": [1, 16],
    "max_source_length": [1, 16],
    "num_beams": [1, 3],
    "eval_strategy": ["epoch", "no", "steps"],
    "save_strategy": ["epoch", "no"],
    "load_best_model_at_end": [True, False],
    "predict_with_generate": [True, False],
    "bf16": [True],
    "compute_time": [True],
    "compute_memory": [True],
    "merge_and_export": [True],
    "save_dtype": ["float32", "bfloat16"],
    "seed": [0, 2**31],
}


def meant(rng: random.Random) -> dict:
    """Return one to four changes, each of which may be meant; together they may contradict each other."""
    return {name: rng.choice(MEANT[name]) for name in rng.sample(sorted(MEANT), rng.choice([1, 2, 3, 4]))}


def mutated(rng: random.Random, values: dict, known: list[str]) -> tuple[dict, str]:
    """Return a configuration with one to three changes, and what they are. known: the keys of the program."""
    values, said = dict(values), []
    for _ in range(rng.choice([1, 1, 2, 3])):
        kind = rng.random()
        if kind < 0.45 and values:
            name = rng.choice(sorted(values))
        elif kind < 0.8:
            name = rng.choice(known)
        elif kind < 0.9:
            name = rng.choice(sorted(OTHER_PROGRAMS))
            values[name] = OTHER_PROGRAMS[name]
            said.append(f"{name} = {values[name]!r}")
            continue
        else:
            name = _misspelt(rng, rng.choice(known))
        if name in values and rng.random() < 0.1:
            del values[name]
            said.append(f"{name} removed")
        else:
            values[name] = rng.choice(EXTREMES)
            said.append(f"{name[:60]} = {repr(values[name])[:60]}")
    return values, ", ".join(said)


def _misspelt(rng: random.Random, name: str) -> str:
    at = rng.randrange(len(name))
    swapped = name[:at] + name[at + 1 : at + 2] + name[at : at + 1] + name[at + 2 :]
    return rng.choice([swapped, name.upper(), f"{name} ", f"-{name}", name + "\u200b", name * 300, "", name[:at]])


def mutated_text(rng: random.Random, text: str) -> tuple[bytes, str]:
    """Return the bytes of a file that no editor should have written, and what is wrong with it."""
    at = rng.randrange(len(text))
    key, value = rng.choice(['"tt_rank": ', '"task_name": ', '"x": ']), rng.choice(["1", '"a"', "null", "[]"])
    texts = {
        "truncated": text[:at],
        "a character removed": text[:at] + text[at + 1 :],
        "a character added": text[:at] + chr(rng.randrange(1, 0x2FF)) + text[at:],
        "a key twice": text.replace("{", "{" + key + value + ",", 1).replace("{", "{" + key + value + ",", 1),
        "two files": text + text,
        "a comment": text.replace("{", "{ // rank", 1),
        "a list": f"[{text}]",
        "a number": "3",
        "nothing": "",
        "nested lists": text.replace("{", '{"tt_shape": ' + "[" * 2000 + "]" * 2000 + ",", 1),
        "nested objects": '{"model_config": ' * 50_000 + "1" + "}" * 50_000,
        "a long number": text.replace("{", '{"tt_rank": ' + "9" * 6000 + ",", 1),
        "a long fraction": text.replace("{", '{"learning_rate": 0.' + "3" * 6000 + ",", 1),
        "a lone surrogate": text.replace("{", '{"experiment_name": "\\ud800",', 1),
        "single quotes": text.replace('"', "'"),
        "Python": text.replace("true", "True").replace("null", "None"),
        "control characters": text.replace('"task_name"', '"task_name\x01"'),
    }
    encoded = {name: content.encode(errors="surrogatepass") for name, content in texts.items()}
    encoded["UTF-16"] = text.encode("utf-16")
    encoded["a byte order mark"] = b"\xef\xbb\xbf" + text.encode()
    encoded["no text"] = rng.randbytes(500)
    encoded["NUL"] = text.encode().replace(b"{", b"{\0", 1)
    encoded["Latin-1"] = text.replace("{", '{"experiment_name": "caf\xe9",', 1).encode("latin-1")
    kind = rng.choice(sorted(encoded))
    return encoded[kind], kind


def mutated_arguments(rng: random.Random, known: list[str]) -> list[str]:
    """Return arguments for the command line, some of them nonsense."""
    name = rng.choice(known)
    value = rng.choice([value for value in EXTREMES if value != "\0"])
    text = json.dumps(value) if rng.random() < 0.8 else str(value)
    text = text.replace("\0", "0").encode(errors="replace").decode()
    choices = [[f"--{name}", text], [f"--{name}={text}"], [f"--{name}"], [text], [f"-{name}", text], ["--", text]]
    return rng.choice([*choices[:2] * 4, *choices])

"""Small adapters, and what can happen to their two files."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from attacks.checkpoints import flip, truncate

WEIGHTS, DESCRIPTION, CARD = "adapter_model.safetensors", "lab_adapter.json", "README.md"
METHODS = {
    "tensor_train": {"train_task_adapters": True, "tensor_train_adapters": True, "unfreeze_layer_norms": True},
    "tt_lora": {"use_TTLoRA": True, "tt_d": 2},
    "lora": {"use_LoRA": True, "lora_rank": 2},
    "bitfit": {"bitfit": True},
}
Damage = Callable[[random.Random, Path, Path], str]


def flipped_data(rng, directory, other):
    content = bytearray((directory / WEIGHTS).read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    content[rng.randrange(start, len(content))] ^= 1 << rng.randrange(8)
    (directory / WEIGHTS).write_bytes(content)
    return "a bit of the tensors"


def flipped_header(rng, directory, other):
    content = bytearray((directory / WEIGHTS).read_bytes())
    end = 8 + int.from_bytes(content[:8], "little")
    content[rng.randrange(end)] ^= 1 << rng.randrange(8)
    (directory / WEIGHTS).write_bytes(content)
    return "a bit of the header"


def flipped_description(rng, directory, other):
    flip(rng, directory / DESCRIPTION)
    return "a bit of the description"


def truncated(rng, directory, other):
    name = rng.choice([WEIGHTS, DESCRIPTION])
    truncate(rng, directory / name)
    return f"{name} truncated"


def missing(rng, directory, other):
    name = rng.choice([WEIGHTS, DESCRIPTION, CARD])
    (directory / name).unlink()
    return f"{name} missing"


def emptied(rng, directory, other):
    name = rng.choice([WEIGHTS, DESCRIPTION, CARD])
    (directory / name).write_bytes(b"")
    return f"{name} empty"


def something_else(rng, directory, other):
    name = rng.choice([WEIGHTS, DESCRIPTION])
    (directory / name).unlink()
    kind = rng.choice(["a directory", "a pipe", "a link to itself", "random bytes"])
    if kind == "a directory":
        (directory / name).mkdir()
    elif kind == "a pipe":
        os.mkfifo(directory / name)
    elif kind == "random bytes":
        (directory / name).write_bytes(rng.randbytes(5000))
    else:
        (directory / name).symlink_to(name)
    return f"{name} is {kind}"


def of_another(rng, directory, other):
    name = rng.choice([WEIGHTS, DESCRIPTION])
    shutil.copyfile(other / name, directory / name)
    return f"{name} of {other.name}"


def another_base(rng, directory, other):
    content = json.loads((directory / DESCRIPTION).read_text())
    content["base_model"] = rng.choice([str(directory), "/no/such/model", "t5-nano", "", None, 5, ["a"], "x" * 5000])
    (directory / DESCRIPTION).write_text(json.dumps(content))
    return f"base_model is {str(content['base_model'])[:60]!r}"


VALUES = (None, -1, 0, 3, 2**70, 1e308, True, False, "", "x", "\0", [], ["a"], {}, {"a": 1}, [[1, 2], [3, 4]])


def edited(rng, directory, other):
    """Change or remove one field of the description, at any depth."""
    content = json.loads((directory / DESCRIPTION).read_text())
    holder, path = content, []
    while True:
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        key = rng.choice(list(keys))
        path.append(str(key))
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.2:
            break
        holder = inner
    if rng.random() < 0.2:
        del holder[key]
        what = "removed"
    else:
        holder[key] = rng.choice(VALUES)
        what = f"is {holder[key]!r}"
    (directory / DESCRIPTION).write_text(json.dumps(content))
    return f"{'.'.join(path)} {what} in the description"


def no_json(rng, directory, other):
    text = (directory / DESCRIPTION).read_text()
    texts = {
        "a list": f"[{text}]",
        "nested deeply": '{"adapter_config": ' * 5000 + "1" + "}" * 5000,
        "a long number": text.replace('"tt_rank": ', '"tt_rank": ' + "9" * 5000, 1),
        "a key twice": text.replace("{", '{"base_model": "t5-nano",', 1),
        "a lone surrogate": text.replace('"tasks"', '"tasks\\ud800"', 1),
        "NaN": text.replace('"lora_dropout": 0.0', '"lora_dropout": NaN', 1),
        "no text": "\0\0\0",
    }
    kind = rng.choice(sorted(texts))
    (directory / DESCRIPTION).write_text(texts[kind])
    return f"the description: {kind}"


def changed_tensors(rng, directory, other):
    """Write the tensors again, changed; where the checksums alone do not tell, half of the time with new ones."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(directory / WEIGHTS)
    name = rng.choice(sorted(tensors))
    tensor = tensors[name]
    alike = [each for each in tensors if each != name and tensors[each].shape == tensor.shape]
    kind = rng.choice(
        ["swapped", "half", "NaN", "infinity", "integers", "renamed", "alias", "more", "less", "shape", "bool"]
    )
    if kind == "swapped" and alike:
        second = rng.choice(alike)
        if torch.equal(tensors[second], tensor):
            tensors[second] = tensor + 1
        tensors[name], tensors[second] = tensors[second], tensor
    elif kind in ("NaN", "infinity"):
        tensor.view(-1)[rng.randrange(tensor.numel())] = float("nan") if kind == "NaN" else float("-inf")
    elif kind == "half":
        tensors[name] = tensor.to(rng.choice([torch.float16, torch.bfloat16]))
    elif kind == "integers":
        tensors[name] = (tensor * 50).to(rng.choice([torch.int64, torch.int32, torch.int8]))
    elif kind == "bool":
        tensors[name] = tensor > 0
    elif kind == "renamed":
        tensors[name.replace("encoder", "decoder", 1) + "_"] = tensors.pop(name)
    elif kind == "alias":
        shared = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight", "shared.weight"]
        name = rng.choice(shared)
        tensors[name] = torch.ones(120, 32)
    elif kind == "more":
        names = ["encoder.final_layer_norm.weight", "decoder.final_layer_norm.weight", "no.such.tensor", ""]
        name = rng.choice([name for name in names if name not in tensors])
        tensors[name] = torch.ones(32)
    elif kind == "less":
        tensors.pop(name)
    else:
        tensors[name] = tensor.reshape(1, *tensor.shape)
    save_file({key: value.contiguous() for key, value in tensors.items()}, directory / WEIGHTS, {"format": "pt"})
    sealed = kind not in ("swapped", "half") and rng.random() < 0.5 and seal(directory)
    return f"{kind}: {name}{', with new checksums' if sealed else ''}"


def seal(directory: Path) -> bool:
    """Write new checksums into the description; False if it has none."""
    from common.checksums import is_sealed, sealed, sha256_of

    content = json.loads((directory / DESCRIPTION).read_text())
    if not is_sealed(content):
        return False
    files = {name: sha256_of(directory / name) for name in content["sha256"] if (directory / name).is_file()}
    (directory / DESCRIPTION).write_text(json.dumps(sealed(content, files)))
    return True


DAMAGES: tuple[Damage, ...] = (
    *(flipped_data, flipped_data, flipped_header, flipped_description, truncated, missing, emptied, something_else),
    *(of_another, another_base, edited, edited, edited, no_json, *[changed_tensors] * 5),
)

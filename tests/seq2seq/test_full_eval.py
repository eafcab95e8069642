"""Evaluation in half precision (bf16_full_eval, fp16_full_eval) changes nothing that is saved, exported or reported."""

import json

import torch
from safetensors.torch import load_file

from tests.conftest import TINY_RUN


def test_what_is_saved_and_exported_does_not_depend_on_the_precision_of_the_evaluation(
    run_main, tiny_backbone, tmp_path
):
    model = {"model_name_or_path": str(tiny_backbone), "model_config": None, "tokenizer_name": None}
    best = {"load_best_model_at_end": True, "save_strategy": "epoch", "eval_strategy": "epoch", "num_train_epochs": 2}
    keys = TINY_RUN | model | best | {"merge_and_export": True, "lora_targets": ["wi"], "unfreeze_layer_norms": True}
    runs = []
    for flags in ({}, {"bf16_full_eval": True}, {"fp16_full_eval": True}):
        out = str(tmp_path / "_".join(["run", *flags]))
        status, errors, out = run_main("configs/tt_lora.json", **keys, **flags, output_dir=out)
        assert status == 0, errors
        files = [load_file(out / name) for name in ("adapter_model.safetensors", "merged/model.safetensors")]
        runs.append((files, json.loads((out / "results.json").read_text())["merged"]))
    (expected, losses), *others = runs
    for found, found_losses in others:
        assert found_losses == losses
        for file, same in zip(expected, found, strict=True):
            assert {tensor.dtype for tensor in same.values()} == {torch.float32}
            assert all(torch.equal(tensor, same[name]) for name, tensor in file.items())

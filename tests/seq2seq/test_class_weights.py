"""class_weights: each class has the same share of the training loss, however rows are batched; nothing else changes."""

import json
import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

from seq2seq.data import get_task
from seq2seq.data.batches import TaskRows
from seq2seq.data.class_weights import with_class_weights
from seq2seq.pipeline import prepare
from seq2seq.settings import load_settings
from tests.conftest import TINIEST, TINY_RUN
from tests.seq2seq.processes import arguments_of

KEYS = {
    **TINY_RUN,
    "model_config": {**TINIEST, "dropout_rate": 0.0},
    "label_style": "words",  # of several tokens, not equally many
    "class_weights": "balanced",
    "per_device_train_batch_size": 12,
    "do_test": False,
}
SEVERAL = {"task_name": ["vader-nyt", "vader-amazon"], "mixed_batches": True}


def trainer_of(config="configs/tt_adapter.json", **keys):
    path, *arguments = arguments_of(config, **{**KEYS, **keys})
    return prepare(load_settings(path, arguments)[0])[0]


def test_weights_are_those_of_scikit_learn(capsys):
    targets = ["0"] * 70 + ["1"] * 20 + ["2"] * 10
    random.Random(0).shuffle(targets)
    texts, tokens = Dataset.from_dict({"target": targets}), Dataset.from_dict({"labels": [[3, 1]] * 100})
    weights = with_class_weights(TaskRows(get_task("mnli"), texts, tokens)).tokens["weight"][:]
    expected = compute_class_weight("balanced", classes=np.array(["0", "1", "2"]), y=targets)
    assert weights == pytest.approx([expected[int(target)] for target in targets])
    assert sum(weights) == pytest.approx(100)
    assert capsys.readouterr().out == "class weights of mnli: 0 0.476, 1 1.67, 2 3.33\n"


def slow_loss(trainer, batch: dict, smoothing: float) -> float:
    """Each row by itself: its cross entropy times the weight of its class, over the number of all target tokens."""
    total, rows = 0.0, trainer.training_rows
    targets = {each.task.name: each.texts["target"][:] for each in rows}
    for n, labels in enumerate(batch["labels"]):
        kept = labels != -100
        name = batch["task"][n] if "task" in batch else rows[0].task.name
        target = trainer.processing_class.decode(labels[kept], skip_special_tokens=True)
        weight = len(targets[name]) / (len(set(targets[name])) * targets[name].count(target))
        task = {"task": name} if "task" in batch else {}
        inputs = {part: batch[part][n : n + 1] for part in ("input_ids", "attention_mask")}
        logits = trainer.model(**inputs, labels=labels[None].clamp(min=0), **task).logits[0]
        total += weight * cross_entropy(logits[kept], labels[kept], reduction="sum", label_smoothing=smoothing).item()
    return total / (batch["labels"] != -100).sum().item()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("several", [False, True])
def test_the_loss_is_that_of_each_row_times_its_weight(several, smoothing, tmp_path):
    keys = {"label_smoothing_factor": smoothing, "output_dir": str(tmp_path / "out"), **(SEVERAL if several else {})}
    trainer = trainer_of("configs/vader_multitask.json" if several else "configs/tt_adapter.json", **keys)
    batch = next(iter(trainer.get_train_dataloader()))
    assert len(set(batch["weight"].tolist())) == (4 if several else 2)
    trainer.model.train()
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, dict(batch)).item()
        assert loss == pytest.approx(slow_loss(trainer, batch, smoothing), rel=1e-5)
        unweighted = {name: value for name, value in batch.items() if name != "weight"}
        assert trainer.compute_loss(trainer.model, unweighted).item() != pytest.approx(loss)
    (rows,) = {tuple(each.tokens.column_names) for each in trainer.validation_rows}
    assert "weight" not in rows


def test_accumulated_batches_are_weighted_like_one(run_main, tmp_path):
    losses = []
    for size, times in ((12, 1), (4, 3)):
        keys = {**KEYS, "per_device_train_batch_size": size, "gradient_accumulation_steps": times, "logging_steps": 1}
        status, errors, out = run_main("configs/tt_adapter.json", **keys, output_dir=str(tmp_path / str(size)))
        assert status == 0, errors
        history = json.loads((out / "results.json").read_text())["history"]
        losses.append([line["loss"] for line in history if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"task_name": ["vader-nyt", "stsb", "squad"]},
            "class_weights is 'balanced', but no labels are in stsb and squad",
        ),
        (
            {"task_name": "file", "source_template": "{a}", "train_file": "none.csv"},
            "no labels are in file; set labels, or",
        ),
        ({"class_weights": "equal"}, 'class_weights is "equal"'),
    ],
)
def test_what_cannot_be_weighted_is_one_line(keys, words, run_main, tmp_path):
    for dry in (False, True):
        status, errors, out = run_main("configs/tt_adapter.json", **{**KEYS, **keys}, dry_run=dry)
        assert status == 2
        assert words in errors[-1]
        assert "Traceback" not in " ".join(errors)
        assert not out.exists()


def test_without_training_nothing_reads_it(run_main, tiny_backbone):
    keys = {**KEYS, "model_name_or_path": str(tiny_backbone), "model_config": None, "tokenizer_name": None}
    _, errors, _ = run_main("configs/tt_adapter.json", **keys, do_train=False, dry_run=True)
    assert any("class_weights" in line and "a run that does not train" in line for line in errors)


def test_a_class_of_two_percent_is_predicted(run_main, tmp_path):
    def write(name: str, rows: int, rare: int) -> str:
        kinds = ["urgent"] * rare + ["usual"] * (rows - rare)
        texts = ["fire" if kind == "urgent" else random.choice(["lamp", "chair", "table", "door"]) for kind in kinds]
        lines = [f"{text} {n},{kind}" for n, (text, kind) in enumerate(zip(texts, kinds, strict=True))]
        (tmp_path / name).write_text("\n".join(["text,label", *lines]) + "\n")
        return str(tmp_path / name)

    random.seed(0)
    files = {"train_file": write("train.csv", 300, 6), "validation_file": write("validation.csv", 40, 20)}
    keys = {**KEYS, **files, "task_name": "file", "labels": ["usual", "urgent"], "source_template": "{text}"}
    keys |= {"max_train_samples": None, "max_val_samples": None, "num_train_epochs": 3, "overwrite_output_dir": True}
    keys |= {"learning_rate": 0.01, "warmup_steps": 5, "load_best_model_at_end": False}
    keys |= {"eval_strategy": "no", "save_strategy": "no"}
    predicted = {}
    for weights in ("balanced", None):
        keys["class_weights"] = weights
        status, errors, out = run_main("configs/controls/full_fine_tuning.json", **keys)
        assert status == 0, errors
        scored = json.loads((out / "results.json").read_text())["splits"]["validation"]["tasks"]["file"]
        predicted[weights] = scored["classes"][1]["predicted"]
    assert predicted["balanced"] > 0 == predicted[None]

"""A run: finished, interrupted, resumed, repeated, overwritten; and the files it leaves."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from common.errors import ConfigError
from run_seq2seq import main
from seq2seq.runs import RunDirectory
from seq2seq.trainer import AdapterTrainer
from tests.conftest import TINY_RUN
from tests.seq2seq.processes import arguments_of, resealed
from third_party.models.t5 import T5ForConditionalGeneration

CONFIG = "configs/tt_adapter.json"
KEYS = {**TINY_RUN, "num_train_epochs": 3, "overwrite_output_dir": False}


def results(out):
    return json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> Path:
    """The directory of a finished run of CONFIG with KEYS; tests change copies of it."""
    out = tmp_path_factory.mktemp("finished") / "out"
    assert main(arguments_of(CONFIG, **KEYS, output_dir=str(out))) == 0
    return out


@pytest.fixture
def finished(finished_run, tmp_path) -> Path:
    """A copy of `finished_run` where `run_main` writes."""
    return shutil.copytree(finished_run, tmp_path / "out")


def test_a_run_leaves_metrics_configuration_and_a_small_adapter(finished_run):
    out = finished_run
    kept = {path.name for path in out.iterdir()}
    assert {"results.json", "resolved_config.json", "adapter_model.safetensors", "lab_adapter.json"} <= kept
    assert not [name for name in kept if name.startswith(".")]
    assert (out / "adapter_model.safetensors").stat().st_size < 2**20
    checkpoint = max(out.glob("checkpoint-*"))
    assert not (checkpoint / "model.safetensors").exists()
    entry = results(out)
    tested = entry["splits"]["test"]["tasks"]["vader-amazon"]
    assert tested["majority"]["accuracy"] >= 50
    assert tested["average_metrics"] == tested["scores"]["accuracy"] == entry["splits"]["test"]["average_metrics"]
    assert any("eval_accuracy" in line for line in entry["history"])
    lines = [json.loads(line) for line in (out / "predictions/test-vader-amazon.jsonl").read_text().splitlines()]
    right = sum(line["prediction"].strip() == line["target"] for line in lines)
    assert len(lines) == tested["rows"] == 16
    assert 100 * right / 16 == tested["scores"]["accuracy"]
    assert len({line["source"] for line in lines}) == 16
    assert all(line["source"].startswith("sentence: ") for line in lines)  # adapters of its own know the task
    assert entry["parameters"]["trainable"] < entry["parameters"]["backbone"]
    assert entry["peak_memory_mib"] > 100
    assert "tt_rank" in entry["keys_read"]
    assert "lora_rank" not in entry["keys_read"]


def test_a_run_that_only_trains(run_main):
    never = {"do_eval": False, "do_test": False, "eval_strategy": "no", "load_best_model_at_end": False}
    status, _, out = run_main(CONFIG, **KEYS | never)
    assert status == 0
    assert results(out)["splits"] == {}
    assert load_file(out / "adapter_model.safetensors")
    assert not (out / "scores.json").exists()


@pytest.mark.parametrize(("config", "keys"), [(CONFIG, {"adapters_per_task": False}), ("configs/tt_lora.json", {})])
def test_sources_name_the_task_where_it_has_no_adapters_of_its_own(run_main, config, keys):
    status, errors, out = run_main(config, **{**TINY_RUN, "max_train_samples": 16, **keys})
    assert status == 0, errors
    lines = (out / "predictions/test-vader-amazon.jsonl").read_text().splitlines()
    assert all(json.loads(line)["source"].startswith("vader-amazon sentence: ") for line in lines)


def test_a_model_that_returns_more_than_runs_need(run_main):
    more = {"return_dict": False, "output_attentions": True, "output_hidden_states": True}
    keys = {**TINY_RUN, "max_train_samples": 16, "model_config": {**TINY_RUN["model_config"], **more}}
    status, errors, _ = run_main(CONFIG, **keys)
    assert status == 0, errors


def test_a_finished_run_is_not_overwritten_unless_asked(run_main, finished):
    out = finished
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for changes, held in (({}, "a finished run"), ({"tt_rank": 1}, "a finished run")):
        status, errors, _ = run_main(CONFIG, **{**KEYS, **changes})
        assert status == 2
        assert held in errors[0]
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    (out / "notes.txt").write_text("mine")
    changes = {"tt_rank": 1, "overwrite_output_dir": True, "num_train_epochs": 1}
    status, errors, _ = run_main(CONFIG, **{**KEYS, **changes})
    assert status == 0, errors
    assert json.loads((out / "resolved_config.json").read_text())["tt_rank"] == 1
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("damaged", [None, "resolved_config.json", "results.json"])
def test_another_experiment_is_never_replaced(damaged, run_main, finished):
    if damaged is not None:  # without its results, the run looks unfinished
        (finished / damaged).write_text("{")
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    status, errors, _ = run_main(CONFIG, **{**KEYS, "experiment_name": "another", "overwrite_output_dir": True})
    assert (status, len(errors)) == (2, 1)
    assert "holds the experiment 'tt_adapter', not 'another'" in errors[0]
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_a_moved_run_resumes_and_keeps_its_best_checkpoint(run_main, tmp_path, monkeypatch):
    """The first epoch is made the best; the run is interrupted in the third, moved, and given by a relative path."""
    scores = iter([90.0, 10.0])

    def score(*_):
        for value in scores:
            return {"accuracy": value, "average_metrics": value}
        raise KeyboardInterrupt

    monkeypatch.setattr(AdapterTrainer, "score", score)
    keys = {**KEYS, "max_val_samples": 4}
    assert run_main(CONFIG, **keys, output_dir=str(tmp_path / "one"))[0] == 130
    best, later = sorted(int(path.name[len("checkpoint-") :]) for path in (tmp_path / "one").glob("checkpoint-*"))
    assert best < later
    (tmp_path / "one").rename(tmp_path / "two")
    scores = iter([20.0, 30.0, 40.0])
    monkeypatch.chdir(tmp_path)
    status, errors, _ = run_main(CONFIG, **keys, output_dir="./two")
    assert status == 0, errors
    kept, final = (load_file(tmp_path / f"two/{d}adapter_model.safetensors") for d in (f"checkpoint-{best}/", ""))
    assert all(torch.equal(kept[name], final[name]) for name in final)


@pytest.fixture
def interrupted(run_main, tmp_path, monkeypatch):
    """(keys, directory) of a run on a file of its own that was interrupted after its first checkpoint."""
    (tmp_path / "own.csv").write_text("text,label\n" + "".join(f"film {n},{n % 2}\n" for n in range(60)))
    own = {"task_name": "file", "train_file": str(tmp_path / "own.csv"), "source_template": "{text}"}
    keys = {**KEYS, **own, "labels": ["0", "1"], "max_val_samples": 4}
    called, score = [], AdapterTrainer.score

    def interrupt(self, *arguments):
        called.append(1)
        if len(called) == 2:
            raise KeyboardInterrupt
        return score(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(AdapterTrainer, "score", interrupt)
        status, _, out = run_main(CONFIG, **keys)
    assert status == 130
    return keys, out


def test_a_run_resumes_only_with_the_same_data(run_main, interrupted):
    keys, out = interrupted
    rows = Path(keys["train_file"]).read_text()
    Path(keys["train_file"]).write_text(rows.replace("film", "book"))
    status, errors, _ = run_main(CONFIG, **keys)
    assert (status, len(errors)) == (2, 1)
    assert "cannot be resumed: data changed from" in errors[0]
    Path(keys["train_file"]).write_text(rows)
    (checkpoint,) = out.glob("checkpoint-*")
    for rank in range(2):
        shutil.copy(checkpoint / "rng_state.pth", checkpoint / f"rng_state_{rank}.pth")
    resealed(checkpoint, processes=2)
    status, errors, _ = run_main(CONFIG, **keys)
    assert (status, len(errors)) == (2, 1)
    assert "processes changed from 2 to 1" in errors[0]
    resealed(checkpoint, processes=1, seconds=1000.0)
    status, errors, _ = run_main(CONFIG, **keys)
    assert status == 0, errors
    assert 1000 < results(out)["seconds"] < 1100  # the seconds before the interruption count


def test_adapters_trained_further_belong_to_the_new_task(run_main, tiny_backbone, tmp_path):
    keys = {name: value for name, value in KEYS.items() if name not in ("model_config", "tokenizer_name")}
    keys |= {"model_name_or_path": str(tiny_backbone), "num_train_epochs": 1}
    assert run_main(CONFIG, **keys, output_dir=str(tmp_path / "amazon"))[0] == 0
    keys |= {"model_name_or_path": str(tmp_path / "amazon")}
    status, errors, out = run_main(CONFIG, **{**keys, "task_name": "vader-nyt", "output_dir": str(tmp_path / "nyt")})
    assert status == 0, errors
    description = json.loads((out / "lab_adapter.json").read_text())
    assert description["tasks"] == ["vader-nyt"]
    assert any(".adapters.vader-nyt." in name for name in description["tensors"])
    assert not any("vader-amazon" in name for name in description["tensors"])
    assert T5ForConditionalGeneration.from_pretrained(out).task_switch.tasks == ("vader-nyt",)
    two = {"task_name": ["vader-nyt", "vader-tweets"], "output_dir": str(tmp_path / "two")}
    status, errors, _ = run_main(CONFIG, **{**keys, **two})
    assert status == 2
    assert "task_name is 'vader-nyt'; the model has adapters for: vader-amazon" in errors[-1]


def test_states_of_a_directory(tmp_path, interrupted):
    (whole,) = interrupted[1].glob("checkpoint-*")

    def checkpoint(step: int) -> None:
        path = shutil.copytree(whole, tmp_path / f"run/checkpoint-{step}")
        state = json.loads((path / "trainer_state.json").read_text())
        (path / "trainer_state.json").write_text(json.dumps({**state, "global_step": step}))
        resealed(path, best_checkpoint=None)

    def open_run(resolved, overwrite=False, resume=None):
        return RunDirectory(str(tmp_path / "run"), resolved, overwrite=overwrite, resume=resume)

    first = open_run({"a": 1, "overwrite_output_dir": False})
    assert first.checkpoint is None
    assert not (tmp_path / "run").exists()
    first.claim()
    first.release()
    for step in (5, 10):
        checkpoint(step)
    (tmp_path / "run/.unfinished/checkpoint-15").mkdir(parents=True)
    for name in ("checkpoint-\N{SUPERSCRIPT TWO}", "checkpoint-007", "checkpoint-x"):
        (tmp_path / "run" / name).mkdir()
    same = open_run({"a": 1, "overwrite_output_dir": True}, overwrite=True)
    assert same.checkpoint.name == "checkpoint-10"
    assert open_run({"a": 1}, resume=False).checkpoint is None
    with pytest.raises(ConfigError, match="holds another run"):
        open_run({"a": 2})
    with pytest.raises(ConfigError, match="no unfinished run of this configuration"):
        open_run({"a": 2}, overwrite=True, resume=True)
    same.claim()
    assert not (tmp_path / "run/.unfinished").exists()
    assert (tmp_path / "run/checkpoint-5").exists()
    same.release()
    other = open_run({"a": 2}, overwrite=True)
    other.claim()
    assert not list((tmp_path / "run").glob("checkpoint-*[0-9][05]"))
    other.finish({})
    other.release()
    with pytest.raises(ConfigError, match="holds a finished run"):
        open_run({"a": 2})


def test_evaluating_a_saved_adapter_gives_the_same_scores(run_main, tmp_path, tiny_backbone):
    keys = {**KEYS, "model_config": None, "num_train_epochs": 1}
    _, _, trained = run_main(CONFIG, **{**keys, "model_name_or_path": str(tiny_backbone)})
    status, errors, again = run_main(
        CONFIG,
        **{**keys, "model_name_or_path": str(trained), "do_train": False, "output_dir": str(tmp_path / "again")},
    )
    assert status == 0, errors
    assert results(again)["splits"] == results(trained)["splits"]
    assert results(again)["parameters"] == results(trained)["parameters"]


def test_evaluating_does_not_remove_what_was_trained(run_main, finished):
    out = finished
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    status, errors, _ = run_main(CONFIG, **{**KEYS, "do_train": False, "overwrite_output_dir": True})
    assert (status, len(errors)) == (2, 1)
    assert "set model_name_or_path to this directory" in errors[0]
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_run_that_merges_exports_and_reports(run_main, batch):
    """The exported model is a plain T5 with its tokenizer; its weights are those that the scores were computed with."""
    from transformers import AutoTokenizer
    from transformers import T5ForConditionalGeneration as Stock

    status, errors, out = run_main("configs/tt_lora.json", **TINY_RUN, merge_and_export=True)
    assert status == 0, errors
    merged = results(out)["merged"]
    assert merged["weights"] == 4
    assert 0 < merged["largest_rounding_loss"] < 1e-3
    stock, tokenizer = Stock.from_pretrained(out / "merged"), AutoTokenizer.from_pretrained(out / "merged")
    assert len(tokenizer) == stock.config.vocab_size
    saved = load_file(out / "adapter_model.safetensors")
    norm = "decoder.final_layer_norm.weight"
    assert torch.equal(stock.state_dict()[norm], saved[norm])
    assert stock(**batch).logits.isfinite().all()


def test_measuring_changes_nothing(run_main, finished_run):
    keys = {**KEYS, "compute_memory": True, "compute_time": True, "print_num_parameters": True}
    status, errors, out = run_main(CONFIG, **keys)
    assert status == 0, errors
    plain, measured = (load_file(each / "adapter_model.safetensors") for each in (finished_run, out))
    assert all(torch.equal(tensor, measured[name]) for name, tensor in plain.items())
    found = results(out)
    assert found["time"]["steps"] == 9
    assert found["time"]["seconds_per_epoch"] > found["time"]["seconds_per_step"] > 0
    assert found["memory"]["total"]["gradients"] == 4 * found["parameters"]["trainable"]
    assert found["memory"]["total"]["optimizer_state"] >= 8 * found["parameters"]["trainable"]
    assert found["memory"]["peak"] > found["memory"]["total"]["saved_activations"] > 0


def test_accumulated_gradients_equal_one_large_batch(run_main, tmp_path):
    """The forward's **kwargs must not make the trainer believe that the loss is scaled already."""
    keys = {**KEYS, "num_train_epochs": 1, "max_train_samples": 32, "train_sampling_strategy": "random"}
    keys = {**keys, "max_grad_norm": 0.0, "lr_scheduler_type": "constant", "warmup_steps": 0, "optim": "sgd"}
    keys["model_config"] = {**TINY_RUN["model_config"], "dropout_rate": 0.0}
    adapters = []
    for size, steps in ((32, 1), (8, 4)):
        out = tmp_path / str(size)
        status, errors, _ = run_main(
            CONFIG,
            **{**keys, "per_device_train_batch_size": size, "gradient_accumulation_steps": steps},
            output_dir=str(out),
        )
        assert status == 0, errors
        adapters.append(load_file(out / "adapter_model.safetensors"))
    a, b = adapters
    assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)

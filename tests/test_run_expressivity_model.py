"""run_expressivity.py --model: against forward hooks and loops over parameters, for every kind of method and run."""

import csv
import hashlib
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from adapters import merge_adapters
from common.errors import ConfigError
from expressivity import ExpressivityError
from expressivity.block_kernels import block_kernels
from expressivity.block_lengths import block_lengths, closed_curve
from expressivity.effective_rank import effective_rank
from run_expressivity import main
from run_seq2seq import main as train
from seq2seq.probing import Probe
from tests.conftest import TINY_RUN
from tests.methods import ONE_A_SITE, adapted, config_for, moved
from third_party.models.t5 import T5ForConditionalGeneration

ROOT = Path(__file__).parent.parent
FAST = ("--inputs", "4", "--points", "20")
ADAPTER = {"train_task_adapters": True, "tensor_train_adapters": True}
LEARNT = {**TINY_RUN, "model_config": None, "tokenizer_name": None, "do_train": True, "learning_rate": 0.01}
RUNS = {
    "adapter": ADAPTER,
    "lora": {"use_TTLoRA": True},
    "full": {},
    "several": {**ADAPTER, "task_name": ["vader-amazon", "vader-nyt"]},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_backbone):
    """finished("adapter") -> the directory of a run of that kind. Tests write nothing but results into it."""
    made = {}

    def call(kind: str) -> Path:
        if kind not in made:
            directory = tmp_path_factory.mktemp(kind)
            keys = {**LEARNT, **RUNS[kind], "model_name_or_path": str(tiny_backbone)}
            keys |= {"output_dir": str(directory / "run"), "experiment_name": kind}
            (directory / "run.json").write_text(json.dumps(keys))
            assert train([str(directory / "run.json")]) == 0
            made[kind] = directory / "run"
        return made[kind]

    return call


@pytest.fixture
def measure(capsys, tmp_path):
    """measure(directory, "--seed", "1") -> (status, lines of output, lines of errors, the results)."""

    def call(directory: Path, *flags: str):
        capsys.readouterr()
        status = main(["--model", str(directory), *FAST, "--out", str(tmp_path / "out"), *flags])
        printed, whole = capsys.readouterr(), tmp_path / "out" / "adapted_model.json"
        found = json.loads(whole.read_text()) if whole.exists() else None
        return status, printed.out.splitlines(), printed.err.splitlines(), found

    return call


def sums(directory: Path) -> dict[str, str]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("kind", RUNS)
def test_every_kind_of_run_is_measured_and_left_alone(finished, measure, tmp_path, kind):
    before = sums(finished(kind))
    status, lines, errors, found = measure(finished(kind))
    assert (status, errors) == (0, [])
    assert sums(finished(kind)) == before
    blocks = [f"{stack}.{part}" for stack in ("encoder", "decoder") for part in ("block.0", "final_layer_norm")]
    assert [each["block"] for each in found["lengths"]] == blocks
    assert found["outputs"] == 16
    trained = json.loads((finished(kind) / "results.json").read_text())["parameters"]["trainable"]
    assert found["adapted"]["all"]["parameters"] == (trained if kind != "several" else trained // 2)
    assert any(each["ratio"] != 1 for each in found["lengths"])
    for kernels in (found["adapted"], found["backbone"]):
        assert all(1 <= kernel["rank"] <= min(16, kernel["parameters"]) for kernel in kernels.values())
        assert {"encoder.block.0", "decoder.block.0", "all"} <= kernels.keys()
    with open(tmp_path / "out" / "results.csv") as file:
        rows = {row["block"]: row for row in csv.DictReader(file)}
    assert float(rows["encoder.block.0"]["length_ratio"]) == found["lengths"][0]["ratio"]
    assert float(rows["all"]["kernel_adapted_rank"]) == found["adapted"]["all"]["rank"]
    assert rows["encoder.final_layer_norm"]["kernel_adapted_rank"] == ""
    assert (tmp_path / "out" / "blocks.png").stat().st_size > 5000
    assert any("on 4 validation rows of vader-amazon" in line for line in lines)


def test_each_task_has_results_of_its_own(finished, measure):
    _, _, _, first = measure(finished("several"))
    status, _, errors, _ = measure(finished("several"), "--task", "vader-nyt")
    assert status == 2
    assert "holds a run that differs in task; choose another output_dir or set overwrite_output_dir" in errors[0]
    status, *_, second = measure(finished("several"), "--task", "vader-nyt", "--overwrite_output_dir")
    assert (status, second["source"]) == (0, "validation rows of vader-nyt")
    assert second["lengths"] != first["lengths"]


def test_by_default_the_results_are_beside_the_run_and_the_same_again(finished, capsys):
    directory = finished("lora")
    found = []
    for _ in range(2):
        assert main(["--model", str(directory), *FAST]) == 0
        found.append((directory / "expressivity" / "adapted_model.json").read_bytes())
    assert found[0] == found[1]
    capsys.readouterr()
    assert not list((directory / "expressivity").glob(".*"))
    shutil.rmtree(directory / "expressivity")


@pytest.mark.parametrize("case", ["tensor_train_adapters", "use_TTLoRA"])
def test_without_an_update_nothing_differs_from_the_backbone(tiny_config, case):
    torch.manual_seed(0)
    plain = T5ForConditionalGeneration(tiny_config)
    fresh = T5ForConditionalGeneration(tiny_config)
    fresh.load_state_dict(plain.state_dict())
    fresh.attach_adapters(config_for(case))
    probes = [Probe(model, None, 0) for model in (fresh, plain)]
    curve = closed_curve(*torch.randn(2, 5, 32), 30)
    for each in block_lengths(*probes, [curve], probes[0].stacks):
        assert each.adapted == each.backbone
        assert (each.ratio, each.ratio_error) == (1, None)
    moved(fresh)
    assert all(each.adapted != each.backbone for each in block_lengths(*probes, [curve], probes[0].stacks))


@pytest.mark.parametrize("case", ["tensor_train_adapters", "use_TTLoRA", "prefix_tuning"])
def test_lengths_are_those_of_forward_hooks(tiny_config, case):
    model, plain = adapted(tiny_config, config_for(case)), T5ForConditionalGeneration(tiny_config).eval()
    embeds, states = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(3)), {}
    norms = [math.sqrt((row**2).sum()) for row in embeds]
    a, b = (row * (sum(norms) / 2 / norm) for row, norm in zip(embeds, norms, strict=True))
    points = [math.cos(2 * math.pi * k / 24) * a + math.sin(2 * math.pi * k / 24) * b for k in range(25)]
    expected = []
    for network in (model, plain):
        merge_adapters(network)
        for stack in (network.encoder, network.decoder):
            for number, block in enumerate([*stack.block, stack.final_layer_norm]):
                place = (stack is network.decoder, number)
                block.register_forward_hook(lambda *call, place=place: states.setdefault(place, []).append(call[2]))
        for point in points:
            with torch.no_grad():
                network(inputs_embeds=point[None], decoder_input_ids=torch.zeros(1, 1, dtype=torch.long))
        images = [[s[0] if isinstance(s, tuple) else s for s in row] for _, row in sorted(states.items())]
        images = [[state[0, -6:] for state in row] for row in images]
        expected.append(
            [sum(math.dist(p.flatten(), q.flatten()) for p, q in zip(row, row[1:], strict=False)) for row in images]
        )
        states.clear()
    probes = [Probe(network, None, 0) for network in (model, plain)]
    found = block_lengths(*probes, [closed_curve(*embeds, 24)], probes[0].stacks)
    assert [each.adapted for each in found] == pytest.approx(expected[0], rel=1e-3)
    assert [each.backbone for each in found] == pytest.approx(expected[1], rel=1e-3)
    length = sum(math.dist(p.flatten(), q.flatten()) for p, q in zip(points, points[1:], strict=False))
    assert found[0].adapted_growth == pytest.approx(expected[0][0] / length, rel=1e-3)
    assert found[2].backbone_growth == pytest.approx(expected[1][2] / expected[1][1], rel=1e-3)
    assert found[3].adapted_growth is None


def test_kernels_are_those_of_a_loop_over_parameters(shallow_config):
    """Of a model that evaluation merges: the gradients are those of the tensor trains all the same."""
    model = adapted(shallow_config, config_for("use_TTLoRA", unfreeze_layer_norms=True))
    inputs = [torch.tensor([[5, 9, 1]]), torch.tensor([[7, 3, 8, 40, 1]])]
    probe = Probe(model, None, seed=2)
    found = block_kernels(probe, inputs, probe.blocks)
    assert list(found) == ["encoder.block.0", "decoder.block.0", "elsewhere", "all"]
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    kernels = dict.fromkeys(found, 0)
    for name, parameter in trained.items():
        rows = []
        for x in inputs:
            logits = model.train()(input_ids=x, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).logits[0, 0]
            for direction in probe.directions.T:
                rows.append(torch.autograd.grad(logits @ direction, parameter, retain_graph=True)[0].flatten().double())
        kernel = torch.stack(rows) @ torch.stack(rows).T
        for group in (name[: len("encoder.block.0")] if ".block." in name else "elsewhere", "all"):
            kernels[group] = kernels[group] + kernel
    for name, kernel in kernels.items():
        assert found[name].rank == pytest.approx(effective_rank(torch.linalg.eigvalsh(kernel)), rel=1e-4)
        assert found[name].trace == pytest.approx(kernel.trace().item(), rel=1e-4)
        unit = kernel / torch.outer(kernel.diagonal(), kernel.diagonal()).sqrt()
        assert found[name].unit_rank == pytest.approx(effective_rank(torch.linalg.eigvalsh(unit)), rel=1e-4)
        one, other = (effective_rank(torch.linalg.eigvalsh(part)) for part in (kernel[:4, :4], kernel[4:, 4:]))
        assert found[name].rank_error == pytest.approx(abs(one - other) / 2, rel=1e-3)
        assert found[name].exact
    assert found["all"].parameters == sum(p.numel() for p in trained.values())
    assert torch.allclose(probe.directions.sum(0), torch.zeros(4), atol=1e-5)
    assert torch.allclose(probe.directions.norm(dim=0), torch.ones(4))


class Toy(nn.Module):
    """Two blocks that share a parameter, and one that takes no part."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(12, 30), nn.Linear(30, 3)
        self.shared, self.idle = nn.Parameter(torch.ones(30)), nn.Parameter(torch.ones(9))
        self.first.register_parameter("scale", self.shared)
        self.second.register_parameter("scale", self.shared)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.second(self.dropout(torch.tanh(self.first(x)) * self.shared))


def test_shared_and_idle_parameters_and_the_mode():
    torch.manual_seed(0)
    network = Toy().train()
    inputs = list(torch.randn(6, 1, 12))
    found = block_kernels(network, inputs, {"one": "first", "two": "second"})
    assert network.training
    assert {name: kernel.parameters for name, kernel in found.items()} == {
        "one": 390, "two": 93, "elsewhere": 30, "all": 513,
    }  # fmt: skip
    network.eval()
    values = {name: p.detach() for name, p in network.named_parameters() if name != "idle"}
    blocks = jacrev(lambda p: functional_call(network, p, (torch.cat(inputs),)).flatten())(values)
    whole = torch.cat([block.flatten(1) for block in blocks.values()], 1).double()
    assert found["all"].rank == pytest.approx(effective_rank(torch.linalg.svdvals(whole).square()), rel=1e-4)


class Either(nn.Module):
    """Uses its second layer for some inputs only."""

    def __init__(self):
        super().__init__()
        self.always, self.sometimes = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return self.always(x) + self.sometimes(x) if x.sum() > 0 else self.always(x)


def test_parameters_that_an_input_does_not_use_do_not_move_its_outputs():
    torch.manual_seed(0)
    network, x = Either(), torch.rand(1, 3)
    found = block_kernels(network, [x, -x, 2 * x], {"a": "always", "b": "sometimes"})
    assert found["a"].trace == pytest.approx(2 * (3 + (1 + 1 + 4) * x.square().sum().item()))
    assert found["b"].trace == pytest.approx(2 * (2 + (1 + 4) * x.square().sum().item()))


def test_an_input_with_a_large_gradient_counts_once_in_the_unit_rank():
    torch.manual_seed(0)
    network, inputs = nn.Linear(9, 1, bias=False), list(torch.eye(9)[:6, None])
    inputs[0] = 100 * inputs[0]
    found = block_kernels(network, inputs, {})["elsewhere"]
    assert found.rank == pytest.approx(1, abs=0.01)
    assert found.unit_rank == pytest.approx(6)
    assert found.unit_error == pytest.approx(0, abs=1e-6)  # each part leaves 5
    assert found.rank_error > 3


def test_a_sketch_finds_the_rank_of_the_kernel():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(300, 200), nn.Tanh(), nn.Linear(200, 2))
    nn.init.constant_(network[2].weight, 1.0)  # gradients of one sign, which would add up without random signs
    inputs = list(torch.randn(12, 1, 300).abs() ** 3 * torch.logspace(-1, 0, 12)[:, None, None])
    exact, rough = (block_kernels(network, inputs, {"first": "0"}, sketch=n)["first"] for n in (10**6, 4099))
    assert (exact.exact, rough.exact) == (True, False)
    assert rough.rank == pytest.approx(exact.rank, rel=0.05)
    assert rough.rank != exact.rank
    assert rough.trace == pytest.approx(exact.trace, rel=0.05)


@pytest.mark.parametrize("case", ONE_A_SITE)
def test_every_site_is_measured(shallow_config, case):
    model = adapted(shallow_config, config_for(case))
    probe, plain = Probe(model, None, 0), Probe(T5ForConditionalGeneration(shallow_config), None, 0)
    found = block_kernels(probe, [torch.tensor([[5, 9, 1]]), torch.tensor([[7, 3, 1]])], probe.blocks)
    assert found["all"].parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert found["all"].rank > 1
    curve = closed_curve(*torch.randn(2, 5, 32), 10)
    lengths = block_lengths(probe, plain, [curve], plain.stacks)
    assert all(each.adapted > 0 for each in lengths)
    assert any(each.ratio != 1 for each in lengths)
    assert not any(layer.is_merged for layer in model.modules() if hasattr(layer, "is_merged"))


def test_without_its_data_the_inputs_are_random_tokens(finished, measure, monkeypatch):
    def absent(*_):
        raise ConfigError("there is no such file")

    monkeypatch.setattr("seq2seq.probing.load_split", absent)
    monkeypatch.setattr("seq2seq.probing.warn_once", lambda text: print(f"warning: {text}", file=sys.stderr))
    status, _, errors, found = measure(finished("adapter"))
    assert (status, found["source"]) == (0, "random tokens")
    assert len(errors) == 1
    assert (
        "the validation rows of vader-amazon cannot be read, so the inputs are random tokens: there is no" in errors[0]
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--inputs", "1"], "--inputs is 1; it must be a whole number from 2 to 256"),
        (["--inputs", "many"], "argument --inputs: invalid int value: 'many'"),
        (["--inputs", "17"], "--inputs is 17; vader-amazon has only 16 validation rows"),
        (["--points", "7"], "--points is 7; it must be a whole number from 8 to 10000"),
        (["--seed", "-1"], "--seed is -1; it must be a whole number, at least 0"),
        (["--task", "mrpc"], "--task is 'mrpc'; the run was trained on: vader-amazon"),
        (["--point", "9"], "unrecognized arguments: --point; usage: python run_expressivity.py --model"),
        (["--model"], "argument --model: expected one argument"),
        (["configs/expressivity/tt_vs_tr.json"], "takes no configuration file such as 'configs/expressivity/tt_vs_tr"),
    ],
)
def test_wrong_arguments_are_one_line(finished, measure, flags, message):
    status, lines, errors, found = measure(finished("adapter"), *flags)
    assert (status, lines, found, len(errors)) == (2, [], None, 1)
    assert message in errors[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: shutil.rmtree(run), "which does not exist; name the directory of a finished run"),
        (lambda run: (run / "resolved_config.json").unlink(), "which holds no run; name the directory"),
        (lambda run: (run / "results.json").unlink(), "whose run is not finished; the command that started it"),
        (lambda run: (run / "diverged.json").write_text("{}"), "whose run diverged and left no model"),
        (lambda run: (run / "series.json").write_text("{}"), "which holds a series of runs; name one of the"),
        (lambda run: (run / "resolved_config.json").write_text("["), "resolved_config.json is not valid JSON"),
        (lambda run: edited(run, do_train=False), "whose run evaluated a model without training it"),
        (lambda run: (run / "model.safetensors").unlink(), "--model is"),
        (lambda run: edited(run, model_name_or_path=None), "trained a new model (model_name_or_path is null)"),
        (lambda run: edited(run, model_name_or_path="outputs/gone"), "'outputs/gone', which does not exist"),
    ],
)
def test_directories_that_cannot_be_measured_are_one_line(finished, measure, tmp_path, change, message):
    shutil.copytree(finished("full"), tmp_path / "run")
    change(tmp_path / "run")
    status, lines, errors, found = measure(tmp_path / "run")
    assert (status, lines, found, len(errors)) == (2, [], None, 1)
    assert message in errors[0]
    assert not (tmp_path / "out").exists()


def edited(run: Path, **keys) -> None:
    path = run / "resolved_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def test_the_backbone_of_an_adapter_is_missing(finished, measure, tmp_path):
    shutil.copytree(finished("adapter"), tmp_path / "run")
    path = tmp_path / "run" / "lab_adapter.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps({**content, "base_model": "/gone/backbone", "base_path": "/gone/backbone"}))
    status, _, errors, _ = measure(tmp_path / "run")
    assert status == 2
    assert "the backbone '/gone/backbone' of the adapter in" in errors[-1]


def test_files_of_something_else_are_left_alone(finished, measure, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    status, _, errors, _ = measure(finished("adapter"), "--overwrite_output_dir")
    assert (status, len(errors)) == (2, 1)
    assert "holds files that this program did not write" in errors[0]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_wrong_input_does_not_wait_for_transformers(tmp_path):
    code = f"import sys; from run_expressivity import main; assert main(['--model', {str(tmp_path)!r}]) == 2; "
    code += "assert main(['--help']) == 0; assert not {'transformers', 'datasets', 'matplotlib'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert "which holds no run" in done.stderr
    assert "python run_expressivity.py --model DIRECTORY" in done.stdout


def test_curves_go_through_both_inputs():
    a, b = torch.randn(2, 3, 4)
    curve = closed_curve(a, b, 8)
    assert curve.shape == (9, 3, 4)
    mean = (a.norm() + b.norm()) / 2
    for place, point in ((0, a), (2, b), (4, -a), (6, -b), (8, a)):
        assert torch.allclose(curve[place], point * mean / point.norm(), atol=1e-6)
    for wrong in (torch.zeros(3, 4), torch.full((3, 4), math.inf), torch.ones(3, 5)):
        with pytest.raises(ExpressivityError, match="0 or not finite|they must be equal"):
            closed_curve(a, wrong, 8)

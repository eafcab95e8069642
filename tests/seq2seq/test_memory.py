"""The memory of a training step against numbers computed by hand. All tensors are of float32: 4 bytes a number."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from adapters import AdapterConfig
from common.errors import ConfigError
from seq2seq.memory import COLUMNS, LiveBytes, blocks, measure_memory
from third_party.models.t5 import T5Config, T5ForConditionalGeneration
from third_party.models.t5.parameters import count_parameters
from utils import modify_model_after_init

FIRST, SECOND = 4 * (8 * 16 + 16), 4 * (16 * 4 + 4)  # bytes of the parameters of the two layers of `chain`
X, H, Y = 4 * 5 * 8, 4 * 5 * 16, 4 * 5 * 4  # bytes of its input, hidden and output


def chain():
    """(model, its layers by name, a step) of two linear layers on 5 rows."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4)), torch.randn(5, 8)
    return model, {"first": model[0], "second": model[1]}, lambda: model(x).sum()


class Block(nn.Module):
    """x + MLP(x) + bias; hands `bias` on to the next block, as T5's blocks do."""

    def __init__(self, how: str | None):
        super().__init__()
        self.mlp, self.how = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 6)), how

    def forward(self, x, bias):
        if self.how is None:
            return x + self.mlp(x) + bias, bias
        return x + checkpoint(self.mlp, x, use_reentrant=self.how == "reentrant") + bias, bias


class Stack(nn.Module):
    def __init__(self, how: str | None = None):
        super().__init__()
        self.bias, self.blocks = nn.Parameter(torch.zeros(6)), nn.ModuleList(Block(how) for _ in range(4))

    def forward(self, x):
        bias = self.bias * 1
        for block in self.blocks:
            x, bias = block(x, bias)
        return x


def adamw(model):
    return torch.optim.AdamW(parameter for parameter in model.parameters() if parameter.requires_grad)


def row(*sizes: int) -> dict[str, int]:
    return dict(zip(COLUMNS, sizes, strict=True))


def test_a_chain_by_hand():
    model, layers, step = chain()
    report = measure_memory(model, step, layers=layers)
    # In the backward pass a linear layer makes the gradients of its parameters, and of its input if that needs one.
    assert report.layers == {
        "first": row(FIRST, FIRST, 0, X, H, FIRST),
        "second": row(SECOND, SECOND, 0, H, Y, SECOND + H),
        "other": row(0, 0, 0, 0, 4, 4),  # the loss, and its gradient
    }
    assert report.total == row(FIRST + SECOND, FIRST + SECOND, 0, X + H, H, SECOND + H)
    # The highest point is the backward of the first layer: loss and its gradient, that of the hidden, and all others.
    assert report.peak == FIRST + SECOND + X + 4 + 4 + H + FIRST + SECOND
    assert report.cuda_peak is None


def test_what_is_between_layers_is_other():
    model, x = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)), torch.randn(5, 8)
    layers = {"first": model[0], "second": model[2]}
    report = measure_memory(model, lambda: model[2](input=model[1](model[0](input=x))).sum(), layers=layers)
    assert report.layers == {
        "first": row(FIRST, FIRST, 0, X, H, FIRST),
        "second": row(SECOND, SECOND, 0, 0, Y, SECOND + H),  # its input is saved already, as the output of tanh
        "other": row(0, 0, 0, H, H, H),
    }


def test_optimizer_state_by_hand_and_in_the_peak():
    model, layers, step = chain()
    plain = measure_memory(model, step, layers=layers)
    report = measure_memory(model, step, adamw(model), layers)
    states = {name: row["optimizer_state"] for name, row in report.layers.items()}
    assert states == {"first": 2 * FIRST + 2 * 4, "second": 2 * SECOND + 2 * 4, "other": 0}  # two moments and a counter
    assert report.peak - report.total["optimizer_state"] >= plain.peak  # the state is there while the step runs
    momentum = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    report = measure_memory(model, step, momentum, layers)
    assert report.total["optimizer_state"] == FIRST + SECOND
    assert report.peak == plain.peak + FIRST + SECOND  # its update allocates nothing


def test_frozen_layers_have_no_gradient_and_no_state():
    model, layers, step = chain()
    model[0].requires_grad_(False)
    report = measure_memory(model, step, adamw(model), layers)
    assert report.layers["first"] == row(FIRST, 0, 0, 0, H, 0)
    assert report.layers["second"] == row(SECOND, SECOND, 2 * SECOND + 8, H, Y, SECOND)


def test_shared_parameters_and_buffers_count_once():
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8))
    model[1].weight = model[0].weight
    layers = {str(number): model[number] for number in (1, 0)}
    x = torch.randn(5, 8)
    report = measure_memory(model, lambda: model(x).square().sum(), layers=layers)
    weight = 4 * 8 * 8
    assert [report.layers[name]["parameters"] for name in ("1", "0", "other")] == [weight, 0, 2 * 4 * 8]
    assert [report.layers[name]["gradients"] for name in ("1", "0", "other")] == [weight, 0, 2 * 4 * 8]
    without = measure_memory(model.eval(), lambda: model[1](x).sum())
    assert without.peak == weight + 64 + (4 * 8 * 2 + 8) + 160 + 4 + 4 + weight  # parameters, buffers, batch, ..


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        self.function()
        return x


def extra(function) -> int:
    """The rise of live bytes in a layer that calls `function`."""
    model, x = nn.Sequential(Calls(function)), torch.ones(1, requires_grad=True)
    return measure_memory(model, lambda: model(x).sum(), layers={"layer": model[0]}).layers["layer"]["forward_extra"]


def test_what_is_freed_counts_no_longer():
    def one_after_the_other():
        for _ in range(3):
            torch.zeros(1000)

    def together():
        return [torch.zeros(1000) for _ in range(3)]

    assert extra(one_after_the_other) == 4000
    assert extra(together) == 12000


def test_only_new_storages_count():
    old = torch.zeros(1000)
    assert extra(lambda: old.view(10, 100).t().add_(1)) == 0
    assert extra(lambda: torch.zeros(1000).view(10, 100).t().add_(1)) == 4000
    assert extra(lambda: torch.zeros(10).resize_(1000)) == 4000
    assert extra(lambda: torch.tensor([1.0] * 1000)) == 4000
    assert extra(lambda: torch.zeros(1).expand(1000)) == 4
    assert extra(lambda: torch.zeros(1000, dtype=torch.bfloat16)) == 2000


def test_an_output_that_its_own_node_saves_is_freed_with_the_graph():
    weight = torch.ones(1000, requires_grad=True)

    def three_times():
        for _ in range(3):
            weight.exp()

    assert extra(three_times) == 4000


@pytest.mark.parametrize("how", ["reentrant", "not reentrant"])
def test_checkpointing_saves_less_and_peaks_lower(how):
    x = torch.randn(50, 6, requires_grad=True)
    reports = {}
    for name in (None, how):
        torch.manual_seed(0)
        model = Stack(name)
        reports[name] = measure_memory(model, lambda model=model: model(x).sum())
    hidden = 4 * 50 * 64  # the first linear layer's output lives on in tanh's, which is saved
    for block in blocks(Stack()):
        saved = [reports[name].layers[block]["saved_activations"] for name in (None, how)]
        assert saved == [4 * 50 * 6 + hidden, 4 * 50 * 6]
        assert reports[how].layers[block]["backward_extra"] > reports[None].layers[block]["backward_extra"]
    assert reports[how].peak < reports[None].peak - 2 * hidden


@pytest.mark.parametrize("how", ["reentrant", "not reentrant"])
def test_what_is_computed_again_counts_for_its_layer(how):
    model, x = Stack(how), torch.randn(50, 6, requires_grad=True)
    layers = {str(number): block.mlp for number, block in enumerate(model.blocks)}
    hidden, output, last = 4 * 50 * 64, 4 * 50 * 6, 4 * (64 * 6 + 6)
    again = hidden + (output if how == "reentrant" else 0)  # the other way stops when the last tensor is there
    report = measure_memory(model, lambda: model(x).sum(), layers=layers)
    # Tanh's output, its gradient and that of its input are there at once.
    assert [report.layers[name]["backward_extra"] for name in layers] == [again + 2 * hidden + last] * 4


def test_like_blocks_have_like_rows():
    x = torch.randn(50, 6)
    model = Stack()
    report = measure_memory(model, lambda: model(x).sum(), adamw(model))
    assert list(report.layers) == ["blocks.0", "blocks.1", "blocks.2", "blocks.3", "other"]
    assert report.layers["blocks.1"] == report.layers["blocks.2"]
    assert report.layers["other"]["parameters"] == 4 * 6
    assert measure_memory(model, lambda: model(x).sum(), adamw(model)) == report


@pytest.mark.parametrize("keys", [{"use_TTLoRA": True, "tt_d": 2}, {"tensor_train_adapters": True}, {}], ids=str)
def test_t5_by_its_parameter_counts(tiny_config, batch, keys):
    torch.manual_seed(0)
    config = (
        AdapterConfig(train_task_adapters=True, **keys) if "tensor_train_adapters" in keys else AdapterConfig(**keys)
    )
    model = modify_model_after_init(T5ForConditionalGeneration(T5Config(**tiny_config.to_dict())), config).train()
    report = measure_memory(model, lambda: model(**batch).loss, adamw(model))
    stacks = [f"{stack}.block.{number}" for stack in ("encoder", "decoder") for number in range(2)]
    assert list(report.layers) == [*stacks, "other"]
    counts, tensors = count_parameters(model), sum(parameter.requires_grad for parameter in model.parameters())
    assert report.total["parameters"] == 4 * counts["total"]
    assert report.total["gradients"] == 4 * counts["trainable"]
    assert report.total["optimizer_state"] == 8 * counts["trainable"] + 4 * tensors
    assert (
        report.peak > report.total["parameters"] + report.total["optimizer_state"] + report.total["saved_activations"]
    )


class Noisy(nn.Module):
    """Has what a step may change: parameters, random numbers, buffers written in place and one that is replaced."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)])
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls = self.calls + 1
        for layer in self.layers:
            x = layer(x)
        return x


def train(measured: bool):
    """(model, optimizer, the next random numbers) after five steps, with measurements in the midst of them, or not."""
    torch.manual_seed(0)
    model = Noisy()
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    x = torch.randn(5, 8)

    def step():
        return model(x + torch.randn_like(x)).square().sum()

    for number in range(5):
        if measured and number in (0, 3):
            measure_memory(model, step, optimizer)
        optimizer.zero_grad()
        step().backward()
        if measured and number == 4:  # with gradients that wait for their step
            measure_memory(model, step, optimizer)
        optimizer.step()
        scheduler.step()
    return model, optimizer, torch.rand(3)


def test_a_measured_run_is_the_same_run():
    (plain, plain_optimizer, plain_random), (model, optimizer, random) = train(False), train(True)
    assert torch.equal(random, plain_random)
    assert model.calls.item() == 5
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(optimizer.state_dict(), plain_optimizer.state_dict(), rtol=0, atol=0)


def test_nothing_is_left_behind():
    model, layers, step = chain()
    optimizer = adamw(model)
    step().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    values, before = copy.deepcopy(model.state_dict()), {key: copy.copy(part) for key, part in vars(model[0]).items()}
    empty = copy.deepcopy(optimizer.state_dict())

    def fails():
        if optimizer.state:
            raise ArithmeticError
        return step()

    with pytest.raises(ArithmeticError):
        measure_memory(model, fails, optimizer, layers)
    assert all(parameter.grad is gradient for parameter, gradient in zip(model.parameters(), gradients, strict=True))
    assert optimizer.state_dict() == empty
    assert not optimizer.state
    torch.testing.assert_close(model.state_dict(), values, rtol=0, atol=0)
    assert vars(model[0]) == before  # no hooks


def test_no_hook_stays_on_a_tensor_that_goes_through_a_layer():
    model, x = nn.Sequential(Calls(lambda: None)), torch.ones(1, requires_grad=True)
    measure_memory(model, lambda: model(x).sum(), layers={"layer": model[0]})
    assert not x._backward_hooks


@pytest.mark.parametrize(
    ("result", "given"),
    [
        (None, "NoneType"),
        ((torch.ones(1, requires_grad=True),), "tuple"),
        (torch.ones(2, 3, requires_grad=True), "Tensor[2, 3]"),
        (torch.ones(()), "Tensor"),
    ],
)
def test_a_step_that_returns_no_loss_is_refused(result, given):
    model, layers, _ = chain()
    with pytest.raises(ConfigError) as error:
        measure_memory(model, lambda: result, layers=layers)
    assert str(error.value) == f"step must return the loss, a tensor of one element that requires grad, not {given}"


def test_layers_that_cannot_be_told_apart_are_refused():
    model, layers, step = chain()
    wrong = [
        {"all": model, "x": model[0]},
        {"x": model[0], "y": model[0]},
        {"other": model[0]},
        {"x": nn.Linear(8, 16)},
    ]
    for layers in wrong:
        with pytest.raises(ConfigError, match="must be a module of the model, not inside another, and not named other"):
            measure_memory(model, step, layers=layers)


def test_the_table_is_in_mib():
    model, x = nn.Linear(1024, 512, bias=False), torch.zeros(1, 1024)
    lines = measure_memory(model, lambda: model(x).sum(), layers={"model": model}).table()
    assert lines[0].split() == ["MiB", *COLUMNS]
    assert lines[1].split() == ["model", "2.000", "2.000", "0.000", "0.004", "0.002", "2.000"]
    assert lines[-1].split() == ["peak:", "4.004"]


def test_live_bytes_are_those_that_somebody_holds():
    x = torch.randn(1000, requires_grad=True)
    with LiveBytes() as memory:
        memory.note([x], new=False)
        assert memory.live == 4000
        y = x.view(10, 100).exp()
        loss = y.sum()
        del y  # the graph holds it
        assert memory.live == 4000 + 4000 + 4
        del loss
        assert memory.live == 4000
    assert memory.peak == 8004

"""What tests/test_accelerator.py runs on the pretended accelerator, in a process of its own."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import transformers
from peft import get_peft_model
from torch import nn
from torch.distributions import Normal

from expressivity import ArchitecturalSpace
from expressivity.devices import WITHOUT_FLOAT64
from expressivity.effective_rank import UpdateRanks, update_ranks
from expressivity.fitting import Errors, Fitter
from expressivity.networks import DeepNetwork
from expressivity.networks.layers import TensorTrainLinear
from expressivity.targets import Source, Targets
from tests.accelerator import DEVICE, Watcher, move, on_device
from tests.methods import config_for
from tests.t3nsor_peft.models import ARCHITECTURES, config_of
from third_party.models.t5 import T5Config, T5ForConditionalGeneration
from utils import modify_model_after_init

SIZES = {"d_model": 24, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 3, "dropout_rate": 0.0}
CONFIG = T5Config(vocab_size=40, **SIZES, decoder_start_token_id=0)


def tokens(*names: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randint(1, 40, (2, 5), generator=generator) for name in names}


def results(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The loss of a training step, the gradients that it leaves, and the logits of an evaluation."""
    model.train().zero_grad()
    loss = model(**batch).loss
    loss.backward()
    found = {f"gradient of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    with torch.no_grad():
        return {"loss": loss.detach(), **found, "logits": model.eval()(**batch).logits}


def compared(model: nn.Module, batch: dict[str, torch.Tensor], generates: bool = False) -> tuple[dict, list[str]]:
    """Run a model on the CPU and on the device, there after a first call, which may fill caches.

    Returns the stalls on the device, and the names of the results that differ from those of the CPU.
    generates: generate as well.
    """
    wanted = {name: tensor.clone() for name, tensor in results(model, batch).items()}
    move(model)
    batch = {name: on_device(tensor) for name, tensor in batch.items()}
    with Watcher() as watcher:
        model.train()(**batch)
        watcher.stalls.clear()
        found = results(model, batch)
        if generates:
            model.generate(input_ids=batch["input_ids"], max_new_tokens=3)
        stalls = dict(watcher.stalls)
    return stalls, differing(wanted, found)


def differing(wanted: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> list[str]:
    """The names of results that one has and the other lacks, or that are not equal up to rounding."""
    with Watcher():
        found = {name: tensor.cpu() for name, tensor in found.items()}
    scale = max(float(tensor.abs().max()) for tensor in wanted.values())
    wrong = [n for n in wanted.keys() & found.keys() if (wanted[n] - found[n]).abs().max() > 1e-5 * scale]
    return sorted({*wrong, *(wanted.keys() ^ found.keys())})


def of_method(case: str, generates: bool = False) -> tuple[dict, list[str]]:
    """`compared` of a case of the registry."""
    torch.manual_seed(0)
    model = modify_model_after_init(T5ForConditionalGeneration(CONFIG), config_for(case))
    return compared(model, tokens("input_ids", "labels"), generates)


def of_peft(method: str) -> tuple[dict, list[str]]:
    """`compared` of a method of t3nsor_peft in the T5 of transformers."""
    architecture = replace(ARCHITECTURES["t5"], build=lambda: transformers.T5ForConditionalGeneration(CONFIG))
    model = get_peft_model(architecture.model(), config_of(method, architecture))
    return compared(model, tokens("input_ids", "labels"), generates=True)


FITTED = {
    "trains": partial(DeepNetwork, 4, 2, "tt", rank=2, d=2),
    "dense": partial(DeepNetwork, 4, 2, "full"),
}


def of_fits(fitted: str, restarts: int, batch: int, with_float64: bool) -> tuple[int, int, float]:
    """Fit networks to two targets on the CPU and on the device, all at once.

    Returns the numbers of stalls and of launches on the device, and the largest difference between the errors.
    """
    recipe = {"batch_size": 32, "epoch": 2, "mini_batch_size": batch}
    space = ArchitecturalSpace(4, fitted, FITTED[fitted], **recipe)
    targets = Source(space, 0, Normal(0.0, 1.0), space.rows(0), 16, 0, torch.device("cpu")).draw(range(2))

    def errors(device: str, targets: Targets) -> Errors:
        fitter = Fitter(space, 0, restarts, nn.MSELoss(), 0, torch.device(device), space.lr)
        fitter.probe(targets)
        assert fitter.obstacle is None, fitter.obstacle
        watcher.stalls.clear()
        return fitter.fit(targets, range(2))

    if not with_float64:
        WITHOUT_FLOAT64.add(DEVICE)
    with Watcher(float64=with_float64) as watcher:
        wanted = errors("cpu", targets)
        parts = (getattr(targets, name) for name in ("x", "y", "fresh_x", "fresh_y"))
        found = errors(DEVICE, Targets(*map(on_device, parts), redrawn=0))
    WITHOUT_FLOAT64.discard(DEVICE)
    difference = max((getattr(found, n) - getattr(wanted, n)).abs().max().item() for n in ("fresh", "training"))
    return sum(watcher.stalls.values()), sum(watcher.launched.values()), difference


def of_ranks() -> tuple[UpdateRanks, UpdateRanks]:
    """The update ranks of a layer on the CPU, and on a device without float64."""
    torch.manual_seed(0)
    layer = TensorTrainLinear(8, 1.0, rank=1, d=3)
    wanted = update_ranks(layer, 8)
    WITHOUT_FLOAT64.add(DEVICE)
    with Watcher(float64=False):
        found = update_ranks(move(layer), 8)
    WITHOUT_FLOAT64.discard(DEVICE)
    return wanted, found


def refusal() -> str:
    """The error of a product with a matrix that was left on the CPU."""
    with Watcher(), pytest.raises(RuntimeError) as error:
        on_device(torch.ones(2, 2)) @ torch.ones(2, 2)
    return str(error.value)


class Waiting(nn.Module):
    """Does to its input what a layer should not do."""

    def __init__(self, what: str):
        super().__init__()
        self.what = what

    def forward(self, x: torch.Tensor) -> object:
        actions = {
            "read": lambda: x.sum().item(),
            "branch": lambda: bool(x.sum() > 0),
            "to the host": lambda: x.cpu(),
            "from numbers": lambda: x + torch.tensor([1.0, 2.0, 3.0], device=x.device),
            "from the host": lambda: x + torch.ones(3).to(x.device),
            "mask": lambda: x[x > 0],
            "nonzero": lambda: x.nonzero(),
            "index": lambda: x[torch.tensor([0, 1])],
        }
        return actions[self.what]()


def stalls_of(what: str) -> list[str]:
    """What is found in an action of `Waiting`."""
    with Watcher() as watcher:
        Waiting(what)(on_device(torch.ones(3)))
    return list(watcher.stalls)

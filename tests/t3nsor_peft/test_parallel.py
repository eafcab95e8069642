"""Two processes (gloo, CPU) compute the gradients of one, by DDP and by both versions of FSDP."""

import json

import pytest
import torch
import torch.distributed as dist
from peft import get_peft_model
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from tests.seq2seq.processes import exit_codes
from tests.t3nsor_peft.models import ARCHITECTURES, config_of, ids, perturb

pytestmark = pytest.mark.slow
METHODS = ["tt_lora", "meta_tt", "tt_adapter"]
LLAMA = ARCHITECTURES["llama"]


def build(method: str) -> nn.Module:
    model = get_peft_model(LLAMA.model(), config_of(method, LLAMA))
    perturb(model)
    return model.train()


def run(model: nn.Module, tokens: torch.Tensor) -> None:
    model(input_ids=tokens).logits.square().mean().backward()


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    wrappers = "_fsdp_wrapped_module."
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    whole = {name: p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad for name, p in trained.items()}
    return {name.replace(wrappers, "").removeprefix("module."): grad.clone() for name, grad in whole.items()}


def ddp(model: nn.Module, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    model = nn.parallel.DistributedDataParallel(model)
    run(model, tokens)
    return gradients(model)


def fsdp1(model: nn.Module, tokens: torch.Tensor, policy=None) -> dict[str, torch.Tensor]:
    options = {"use_orig_params": True, "device_id": torch.device("cpu"), "auto_wrap_policy": policy}
    model = FullyShardedDataParallel(model, **options)
    run(model, tokens)
    with FullyShardedDataParallel.summon_full_params(model, with_grads=True):
        return gradients(model)


def fsdp1_blocks(model: nn.Module, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    return fsdp1(model, tokens, ModuleWrapPolicy({LlamaDecoderLayer}))


def fsdp2(model: nn.Module, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    fully_shard(model)
    run(model, tokens)
    return gradients(model)


def fsdp2_blocks(model: nn.Module, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    for block in model.base_model.model.model.layers:
        fully_shard(block)
    return fsdp2(model, tokens)


WRAPPINGS = {function.__name__: function for function in (ddp, fsdp1, fsdp1_blocks, fsdp2, fsdp2_blocks)}


def compare(file: str) -> int:
    """Write method, wrapping -> largest difference of a gradient from that of one process, or the error."""
    dist.init_process_group("gloo")
    tokens, found = ids(rows=4)["input_ids"], {}
    for method in METHODS:
        alone = build(method)
        run(alone, tokens)
        expected = gradients(alone)
        for name, wrapping in WRAPPINGS.items():
            try:
                grads = wrapping(build(method), tokens.chunk(2)[dist.get_rank()])
                assert grads.keys() == expected.keys()
                found[f"{method} {name}"] = max(
                    ((grads[key] - grad).norm() / grad.norm()).item() for key, grad in expected.items()
                )
            except RuntimeError as error:
                found[f"{method} {name}"] = str(error)
    if dist.get_rank() == 0:
        with open(file, "w") as stream:
            json.dump(found, stream)
    dist.destroy_process_group()
    return 0


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, float | str]:
    directory = tmp_path_factory.mktemp("parallel")
    codes = exit_codes(compare, str(directory / "found.json"), log=directory / "log", processes=2)
    assert codes == [0, 0], (directory / "log").read_text()
    return json.loads((directory / "found.json").read_text())


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("method", METHODS)
def test_gradients_equal_those_of_one_process(method, wrapping, found):
    if method == "meta_tt" and wrapping.endswith("blocks"):
        assert "wrap the model as a whole" in found[f"{method} {wrapping}"]
    else:
        assert found[f"{method} {wrapping}"] < 1e-4

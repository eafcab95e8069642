"""Adapted models where they are put: offloaded, parametrized, exported, compiled, quantised, sharded over processes."""

import copy
import json

import pytest
import torch
import torch.distributed as dist
from accelerate import cpu_offload, disk_offload
from torch import nn
from torch.distributed.fsdp import fully_shard

from adapters.merging import merge_adapters
from common.errors import ConfigError
from tests.conftest import TINIEST
from tests.methods import CASES, config_for
from tests.seq2seq.processes import exit_codes
from third_party.models.t5 import T5Config, T5ForConditionalGeneration
from utils import modify_model_after_init

TRAINS = ["use_TTLoRA", "tensor_train_adapters"]
WI = "encoder.block.0.layer.1.DenseReluDense.wi"


def build(config, case):
    assert case in CASES
    torch.manual_seed(0)
    model = modify_model_after_init(T5ForConditionalGeneration(copy.deepcopy(config)), config_for(case))
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    return model


@torch.no_grad()
def logits(model, batch):
    return model(**batch).logits


@pytest.mark.parametrize("case", TRAINS)
@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_offloaded_with_adapters(shallow_config, batch, case, on_disk, training, tmp_path):
    model = build(shallow_config, case).train(training)
    expected = logits(model, batch)
    model = disk_offload(model, tmp_path, "cpu") if on_disk else cpu_offload(model, "cpu")
    for mode in (None, True, False):
        model = model if mode is None else model.train(mode)
        torch.testing.assert_close(logits(model, batch), expected, rtol=1e-4, atol=1e-4)
    assert set(merge_adapters(model).values()) <= {"its weight is offloaded"}


def test_adapters_do_not_come_after_offloading(shallow_config):
    backbone = cpu_offload(T5ForConditionalGeneration(shallow_config), "cpu")
    with pytest.raises(ConfigError, match="attach adapters first, then offload"):
        modify_model_after_init(backbone, config_for("use_TTLoRA"))


@pytest.mark.parametrize("merged_before", [False, True])
def test_a_parametrized_weight_is_not_merged_into(shallow_config, batch, merged_before):
    model = build(shallow_config, "use_TTLoRA").train(not merged_before)
    expected = logits(model, batch)
    nn.utils.parametrizations.weight_norm(model.get_submodule(WI))
    for mode in (merged_before, not merged_before):
        torch.testing.assert_close(logits(model.train(mode), batch), expected, rtol=1e-4, atol=1e-4)
    assert merge_adapters(model) == {WI: "its weight is parametrized, computed from other tensors"}


def test_a_merged_weight_follows_a_parametrized_core(shallow_config, batch):
    model = build(shallow_config, "use_TTLoRA")
    cores = model.get_submodule(WI).branch.tt.weight.cores
    nn.utils.parametrizations.weight_norm(cores, "1")
    before = logits(model.eval(), batch)
    with torch.no_grad():
        cores.parametrizations["1"].original0.mul_(3)
    after = logits(model, batch)
    assert not torch.allclose(after, before, atol=1e-3)
    torch.testing.assert_close(after, logits(model.train(), batch), rtol=1e-4, atol=1e-4)


class Logits(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens, labels):
        return self.model(input_ids=tokens, decoder_input_ids=labels, use_cache=False).logits


@pytest.mark.parametrize("merged", [False, True])
def test_an_exported_model_is_for_any_number_of_rows(shallow_config, batch, merged):
    model = Logits(build(shallow_config, "use_TTLoRA").train(not merged))
    inputs = batch["input_ids"], batch["labels"]
    rows = torch.export.Dim("rows")
    with torch.no_grad():
        program = torch.export.export(model, inputs, dynamic_shapes=({0: rows}, {0: rows}))
        assert not [node for node in program.graph.nodes if "t3nsor" in str(node.target)]
        more = [torch.cat([each, each]) for each in inputs]
        torch.testing.assert_close(program.module()(*more), model(*more), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch 2.11
def test_a_training_step_is_one_graph(shallow_config, batch):
    def losses(model, step):
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(2):
            loss = step(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            yield loss.item()

    eager, compiled = (build(shallow_config, "use_TTLoRA").train() for _ in range(2))
    step = torch.compile(compiled, backend="eager", fullgraph=True)
    assert list(losses(compiled, step)) == pytest.approx(list(losses(eager, eager)), rel=1e-5)


def train(model, batch):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(3):
        loss = model.train()(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    with torch.no_grad():
        return torch.stack([*losses, model.eval()(**batch).loss])


def compare(file: str) -> int:
    """Write case -> largest difference of a loss from that of one process, and what stays parallel."""
    dist.init_process_group("gloo")
    config = T5Config(**TINIEST, vocab_size=120, dropout_rate=0.0, decoder_start_token_id=0)
    generator = torch.Generator().manual_seed(0)
    batch = {name: torch.randint(3, 120, (4, 6), generator=generator) for name in ("input_ids", "labels")}
    mine, found = {name: each.chunk(2)[dist.get_rank()] for name, each in batch.items()}, {}
    for case in TRAINS:
        alone = train(build(config, case), batch)
        model = build(config, case)
        for block in [*model.encoder.block, *model.decoder.block]:
            fully_shard(block)
        losses = train(fully_shard(model), mine)
        dist.all_reduce(losses)
        found[case] = (losses / 2 - alone).abs().max().item(), merge_adapters(model)
    if dist.get_rank() == 0:
        with open(file, "w") as stream:
            json.dump(found, stream)
    dist.destroy_process_group()
    return 0


def test_two_processes_with_sharded_weights_train_as_one(tmp_path):
    codes = exit_codes(compare, str(tmp_path / "found.json"), log=tmp_path / "log", processes=2)
    assert codes == [0, 0], (tmp_path / "log").read_text()
    found = json.loads((tmp_path / "found.json").read_text())
    assert max(difference for difference, _ in found.values()) < 1e-5
    assert set(found["use_TTLoRA"][1].values()) == {"its weight is sharded"}

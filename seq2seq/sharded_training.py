"""Runs that FSDP 2 spreads over several processes, with the checkpoints that a run in one process writes."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy
from transformers import PreTrainedModel, Trainer
from transformers.models.t5.modeling_t5 import T5Block

from common.errors import ConfigError, warn_once
from third_party.models.t5.fingerprint import tensor_names
from third_party.models.t5.sharding import fill, share_embeddings

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
OPTIMIZER, SCHEDULER, MODEL = "optimizer.pt", "scheduler.pt", "model.safetensors"


def prepare_sharding(trainer: Trainer) -> None:
    """Make the model one that FSDP 2 can shard.

    Raises ConfigError if accelerate shards in a way that is not supported, or if the run needs whole weights.
    """
    plugin = trainer.accelerator.state.fsdp_plugin
    if getattr(plugin, "fsdp_version", 1) != 2:
        raise ConfigError("FSDP 1 is not supported; set fsdp_version to 2 in the configuration of accelerate")
    if "FULL_STATE_DICT" not in str(plugin.state_dict_type):
        raise ConfigError("set fsdp_state_dict_type to FULL_STATE_DICT in the configuration of accelerate")
    if plugin.auto_wrap_policy is size_based_auto_wrap_policy:
        raise ConfigError("set fsdp_auto_wrap_policy to TRANSFORMER_BASED_WRAP or NO_WRAP, not to SIZE_BASED_WRAP")
    config = trainer.model.adapter_config
    if config is not None and config.intrinsic_model:
        raise ConfigError(
            "intrinsic_model trains one subspace for all layers, which FSDP cannot spread over the processes; run it "
            "without FSDP (DDP: accelerate launch --multi_gpu)"
        )
    if trainer.args.merge_and_export:
        raise ConfigError(
            "merge_and_export needs whole weights, which FSDP spreads over the processes; leave it out, and run once "
            "more in one process, with do_train false and this run's directory as model_name_or_path"
        )
    share_embeddings(trainer.model)
    if plugin.auto_wrap_policy is not None and _blocks_share(trainer.model):
        warn_once("the blocks share trained parameters: FSDP gathers the whole model at once, not block by block")
        plugin.auto_wrap_policy = None


def _blocks_share(model: PreTrainedModel) -> bool:
    parameters = [set(block.parameters()) for block in model.modules() if isinstance(block, T5Block)]
    return sum(map(len, parameters)) > len(set().union(*parameters))


def save_states(trainer: Trainer, directory: Path) -> None:
    """Write the states of optimizer and scheduler to a checkpoint. All processes must call this; one of them writes."""
    state = get_optimizer_state_dict(trainer.model, trainer.optimizer.optimizer, options=WHOLE)
    if trainer.args.should_save:
        torch.save(state, directory / OPTIMIZER)
        torch.save(trainer.lr_scheduler.state_dict(), directory / SCHEDULER)


def load_states(trainer: Trainer, checkpoint: Path) -> None:
    """Give each process its part of the optimizer's state in a checkpoint, and the scheduler's."""
    state = torch.load(checkpoint / OPTIMIZER, map_location="cpu", weights_only=True)
    set_optimizer_state_dict(trainer.model, trainer.optimizer.optimizer, state, options=WHOLE)
    trainer.lr_scheduler.load_state_dict(torch.load(checkpoint / SCHEDULER, weights_only=True))


def load_model(model: PreTrainedModel, checkpoint: str | Path) -> None:
    """Give each process its part of the weights in a checkpoint of a whole model."""
    saved = load_file(Path(checkpoint, MODEL))
    for tensor, name in tensor_names(model).items():
        fill(tensor, saved[name])


def without_ties(model: PreTrainedModel, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the whole tensors of a state dict, each of the tied ones once: gathered, they are no longer one tensor."""
    return {name: state[name] for name in tensor_names(model).values() if name in state}

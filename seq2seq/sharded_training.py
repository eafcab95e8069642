"""Runs that FSDP 2 spreads over several processes, with the checkpoints that a run in one process writes."""

import os
from inspect import signature
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy
from transformers import PreTrainedModel, Trainer
from transformers.models.t5.modeling_t5 import T5Block

from adapters.intrinsic import IntrinsicSubspace
from common.errors import ConfigError, warn_once
from third_party.models.t5.fingerprint import tensor_names
from third_party.models.t5.sharding import fill, share_embeddings

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
OPTIMIZER, SCHEDULER, MODEL = "optimizer.pt", "scheduler.pt", "model.safetensors"


def read_weights_in_every_process() -> None:
    """Overrule accelerate, by whose default one process reads the weights and those of the others stay empty.

    Adapters are attached, and weights checked and described, before FSDP spreads them.
    """
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"


def prepare_sharding(trainer: Trainer) -> None:
    """Make the model one that FSDP 2 can shard.

    Raises ConfigError if accelerate shards in a way that is not supported, or if the run needs whole weights.
    """
    plugin = trainer.accelerator.state.fsdp_plugin
    if getattr(plugin, "fsdp_version", 1) != 2:
        raise ConfigError("FSDP 1 is not supported; set fsdp_version to 2 for accelerate, or version in fsdp_config")
    if "FULL_STATE_DICT" not in str(plugin.state_dict_type):
        raise ConfigError(
            "checkpoints hold whole weights; set fsdp_state_dict_type to FULL_STATE_DICT for accelerate, or "
            "state_dict_type in fsdp_config"
        )
    if plugin.auto_wrap_policy is size_based_auto_wrap_policy:
        raise ConfigError("set fsdp_auto_wrap_policy to TRANSFORMER_BASED_WRAP or NO_WRAP, not to SIZE_BASED_WRAP")
    others = [name for name in plugin.transformer_cls_names_to_wrap or () if name != T5Block.__name__]
    if others:
        raise ConfigError(f"FSDP is told to wrap {others[0]}; T5 can be spread by T5Block only")
    if trainer.args.merge_and_export:
        raise ConfigError(
            "merge_and_export needs whole weights, which FSDP spreads over the processes; leave it out, and run once "
            "more in one process, with do_train false and this run's directory as model_name_or_path"
        )
    plugin.cpu_ram_efficient_loading = False
    share_embeddings(trainer.model)
    subspaces = [module for module in trainer.model.modules() if isinstance(module, IntrinsicSubspace)]
    if subspaces and "ignored_params" not in signature(fully_shard).parameters:
        raise ConfigError("intrinsic_model with FSDP needs torch 2.7 or later")
    if subspaces:  # of all layers, so that it belongs to no group of them
        plugin.ignored_modules = subspaces
        for subspace in subspaces:
            for parameter in subspace.to(trainer.args.device).parameters():
                parameter.register_post_accumulate_grad_hook(average_gradient)
    elif plugin.auto_wrap_policy is not None and _blocks_share(trainer.model):
        warn_once("the blocks share trained parameters: FSDP gathers the whole model at once, not block by block")
        plugin.auto_wrap_policy = None


def average_gradient(parameter: torch.Tensor) -> None:
    """Replace the gradient of a parameter that every process has as a whole by the mean of all; a hook.

    What was accumulated before is the same in all, and remains so.
    """
    torch.distributed.all_reduce(parameter.grad)
    parameter.grad /= torch.distributed.get_world_size()


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

"""The backbone and the tokenizer of a run: by hub id, local directory or `t5-nano`, or from scratch."""

from pathlib import Path

import torch
from transformers import AutoTokenizer

from adapters import ConfigError, one_line
from seq2seq.arguments import ModelArguments
from seq2seq.pretraining import initialise_embedding, train_tokenizer
from third_party.models.t5 import T5Config, T5ForConditionalGeneration, adapter_checkpoint
from third_party.models.t5.configuration_t5 import SHAPES, SHIPPED, resolve_name


def load_tokenizer(arguments: ModelArguments, training_texts):
    """The tokenizer that the arguments name, else one trained on `training_texts`, a callable that gives the texts."""
    named = {key: getattr(arguments, key) for key in ("tokenizer_name", "model_name_or_path", "model_config")}
    for key, name in named.items():
        if isinstance(name, str) and name not in SHAPES:
            return _load(key, name, _tokenizer_of)
    return train_tokenizer(training_texts(), arguments.tokenizer_vocab_size)


def _tokenizer_of(name: str):
    if adapter_checkpoint.holds_adapter(name):
        name = adapter_checkpoint.read_description(Path(name)).base_model
    return AutoTokenizer.from_pretrained(resolve_name(name))


def load_backbone(arguments: ModelArguments, tokenizer) -> T5ForConditionalGeneration:
    """The backbone; where model_name_or_path is the directory of a run, with the adapters of that run."""
    if arguments.model_name_or_path is None:
        return _from_scratch(arguments, tokenizer)
    dtype = getattr(torch, arguments.dtype)
    return _load(
        "model_name_or_path",
        arguments.model_name_or_path,
        lambda name: T5ForConditionalGeneration.from_pretrained(name, dtype=dtype),
    )


def _from_scratch(arguments: ModelArguments, tokenizer) -> T5ForConditionalGeneration:
    given = arguments.model_config
    if given is None:
        raise ConfigError("model_name_or_path and model_config are both null; name a model, or the sizes of a new one")
    if isinstance(given, str) and given not in SHAPES:
        config = _load("model_config", given, T5Config.from_pretrained)
    else:
        sizes = {"vocab_size": len(tokenizer), "decoder_start_token_id": tokenizer.pad_token_id}
        try:
            config = T5Config(**sizes | (SHAPES[given] if isinstance(given, str) else given))
        except Exception as error:  # transformers' strict dataclasses raise classes of their own
            raise ConfigError(f"model_config: {' '.join(str(error).split())}") from None
    model = T5ForConditionalGeneration(config)
    model.name_or_path = ""  # the sizes may be another model's, the weights are not
    if arguments.initial_embedding is not None:
        initialise_embedding(model, tokenizer)
    return model


def _load(key: str, name: str, loader):
    """`loader(name)`; a failure becomes one line that names the key."""
    try:
        return loader(name)
    except ConfigError:
        raise
    except (OSError, ValueError, ImportError) as error:
        allowed = f"allowed: {', '.join(SHIPPED)}, a local directory, or a hub id"
        raise ConfigError(f"{key} is {name!r}, which cannot be loaded ({one_line(error)}); {allowed}") from None

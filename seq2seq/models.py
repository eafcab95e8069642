"""The backbone and the tokenizer of a run: by hub id, local directory or `t5-nano`, or from scratch."""

import re
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer

from common.errors import ConfigError, one_line
from seq2seq.arguments import ModelArguments
from seq2seq.hub import hub_answers, reason
from seq2seq.pretraining import initialise_embedding, train_tokenizer
from third_party.models.t5 import T5Config, T5ForConditionalGeneration, adapter_checkpoint
from third_party.models.t5.configuration_t5 import SHAPES, SHIPPED, resolve_name

NOTHING_NAMED = "model_name_or_path and model_config are both null; name a model, or the sizes of a new one"
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
SENTINELS = 100  # that a trained tokenizer has beside its pieces


def load_tokenizer(arguments: ModelArguments, training_texts):
    """The tokenizer that the arguments name, else one trained on `training_texts`, where there are any."""
    named = {key: getattr(arguments, key) for key in ("tokenizer_name", "model_name_or_path", "model_config")}
    for key, name in named.items():
        if isinstance(name, str) and not (key == "model_config" and name in SHAPES):  # which are sizes, no model
            return _load(key, name, _tokenizer_of)
    if training_texts is None:
        raise ConfigError("tokenizer_name is null, and without do_train there is no text to train one on; name one")
    return train_tokenizer(training_texts, arguments.tokenizer_vocab_size)


def _tokenizer_of(name: str):
    if adapter_checkpoint.holds_adapter(name):
        name = base_of(name)
    return AutoTokenizer.from_pretrained(resolve_name(name))


def base_of(directory: str) -> str:
    """The name of the backbone that an adapter was trained on. Raises ConfigError where it has none."""
    base = adapter_checkpoint.read_description(Path(directory)).base_model
    if base is None:
        raise ConfigError(f"{directory} was trained on a backbone that was never saved; it cannot be loaded by name")
    return base


def load_backbone(arguments: ModelArguments, tokenizer) -> T5ForConditionalGeneration:
    """The backbone; where model_name_or_path is the directory of a run, with the adapters of that run."""
    if arguments.model_name_or_path is None:
        return _from_scratch(arguments, tokenizer)
    dtype = getattr(torch, arguments.dtype)

    def load(name: str) -> T5ForConditionalGeneration:
        model, report = T5ForConditionalGeneration.from_pretrained(name, dtype=dtype, output_loading_info=True)
        absent = sorted(report["missing_keys"])
        if absent:
            raise ValueError(f"{len(absent)} of the model's tensors are not in its file, the first {absent[0]}")
        return model

    return check_vocabulary(_load("model_name_or_path", arguments.model_name_or_path, load), tokenizer)


@contextmanager
def wrong_sizes_named():
    """What a wrong size leads to becomes one line that names model_config."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # each wrong size fails in its own way and class
        raise ConfigError(f"model_config: {' '.join(str(error).split()) or type(error).__name__}") from None


def configuration_of(arguments: ModelArguments) -> T5Config:
    """The backbone's configuration, without its weights; published sizes are known without the hub."""
    name, given = arguments.model_name_or_path, arguments.model_config
    if name is not None and adapter_checkpoint.holds_adapter(name):
        name = base_of(name)
    if name is not None:
        published = name.removeprefix("google-t5/") in SHAPES and not Path(name).exists()
        return T5Config.from_shape(name) if published else _load("model_name_or_path", name, T5Config.from_pretrained)
    if given is None:
        raise ConfigError(NOTHING_NAMED)
    named = arguments.tokenizer_name and _load("tokenizer_name", arguments.tokenizer_name, _tokenizer_of)
    return _configuration(given, len(named) if named else arguments.tokenizer_vocab_size + SENTINELS)


def check_tasks(model, tasks: dict) -> None:
    """Raise ConfigError for a task without adapters in a model where each of several tasks has its own.

    tasks: split -> tasks. A model with the adapters of one other task takes them for the task that it is trained on.
    """
    known, config = model.task_switch.tasks, model.adapter_config
    several = len(known) > 1 or (config is not None and config.own_adapters and len(tasks["train"]) > 1)
    for key, split in (("task_name", "train"), ("eval_dataset_name", "validation"), ("test_dataset_name", "test")):
        for task in tasks[split] if several else ():
            if task.name not in known:
                raise ConfigError(f"{key} is {task.name!r}; the model has adapters for: {', '.join(known)}")
    if len(known) == len(tasks["train"]) == 1:
        model.rename_task(tasks["train"][0].name)


def check_vocabulary(model, tokenizer):
    """The model, if its embedding has a row for each token. Raises ConfigError."""
    rows = model.get_input_embeddings().num_embeddings
    if rows < len(tokenizer):
        raise ConfigError(
            f"tokenizer_name: the tokenizer has {len(tokenizer)} tokens, the model's embedding {rows} rows"
        )
    return model


def _from_scratch(arguments: ModelArguments, tokenizer) -> T5ForConditionalGeneration:
    given = arguments.model_config
    if given is None:
        raise ConfigError(NOTHING_NAMED)
    with wrong_sizes_named():
        model = T5ForConditionalGeneration(_configuration(given, len(tokenizer), tokenizer.pad_token_id))
    check_vocabulary(model, tokenizer)
    model.name_or_path = ""  # the sizes may be another model's, the weights are not
    if arguments.initial_embedding is not None:
        initialise_embedding(model, tokenizer)
    return model


def _configuration(given: dict | str, tokens: int, start: int = 0) -> T5Config:
    """Of a named model; or of published sizes or single fields, then with the tokenizer's number of tokens."""
    if isinstance(given, str) and given not in SHAPES:
        return _load("model_config", given, T5Config.from_pretrained)
    vocabulary = {"vocab_size": tokens, "decoder_start_token_id": start}
    if isinstance(given, str):
        return T5Config.from_shape(given, **vocabulary)
    _check_fields(given)
    return T5Config(**vocabulary | given)


def _check_fields(given: dict) -> None:
    """Raise ConfigError for a field that a T5Config does not have."""
    known = T5Config().to_dict()
    for name in given:
        if name not in known and name not in ("feed_forward_proj", "num_decoder_layers"):
            near = get_close_matches(name, known, 1)
            raise ConfigError(
                f"model_config: {name} is no field of a T5Config" + (f"; did you mean {near[0]}?" if near else "")
            )


def _load(key: str, name: str, loader):
    """`loader(name)`; a failure becomes one line that names the key."""
    of_hub = HUB_ID.fullmatch(name) and name not in SHIPPED and not Path(name).exists()
    if of_hub:
        hub_answers()
    try:
        return loader(name)
    except ConfigError:
        raise
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        allowed = f"allowed: {', '.join(SHIPPED)}, a local directory, or a hub id"
        why = reason(error) if of_hub else one_line(error)
        raise ConfigError(f"{key} is {name!r}, which cannot be loaded ({why}); {allowed}") from None

"""The backbone and the tokenizer of a run: a hub id, a local directory, `t5-nano`, or a new model."""

import re
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from pathlib import Path

import torch
from transformers import AutoTokenizer

from common.errors import ConfigError, one_line
from seq2seq.arguments import TASK_KEYS, ModelArguments
from seq2seq.hub import hub_answers, reason
from seq2seq.pretraining import SENTINELS, train_tokenizer
from third_party.models.t5 import T5Config, T5ForConditionalGeneration
from third_party.models.t5.adapter_description import bases
from third_party.models.t5.configuration_t5 import SHAPES, SHIPPED, resolve_name
from third_party.models.t5.hub import adapter_directory
from third_party.models.t5.loading import UNLOADABLE

NO_MODEL = "model_name_or_path and model_config are both null; name a model, or the sizes of a new one"
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load_tokenizer(arguments: ModelArguments, training_texts):
    """Return the tokenizer that the arguments name, else one trained on `training_texts`.

    Raises ConfigError if it cannot be loaded, or if there is neither a name nor a text.
    """
    named = {key: getattr(arguments, key) for key in ("tokenizer_name", "model_name_or_path", "model_config")}
    for key, name in named.items():
        if isinstance(name, str) and not (key == "model_config" and name in SHAPES):  # sizes without a tokenizer
            return load_named(key, name, _tokenizer_of)
    if training_texts is None:
        raise ConfigError(
            "tokenizer_name is null, and without do_train there is no text to train a tokenizer on; set tokenizer_name"
        )
    return train_tokenizer(training_texts, arguments.tokenizer_vocab_size)


def _tokenizer_of(name: str):
    directory = adapter_directory(name)
    return AutoTokenizer.from_pretrained(resolve_name(base_of(directory) if directory else name))


def local(name: str) -> str:
    """Return the directory of an adapter of the hub; any other name unchanged."""
    if not HUB_ID.fullmatch(name) or name in SHIPPED or Path(name).exists():
        return name
    hub_answers()
    return str(adapter_directory(name) or name)


def base_of(directory: str | Path) -> str:
    """Return the name or path of the backbone that an adapter was trained on. Raises ConfigError if there is none."""
    found = bases(Path(directory))
    if len(found) > 1:  # only the weights tell which one it is
        return T5ForConditionalGeneration.from_pretrained(directory).name_or_path
    return found[0]


def load_backbone(arguments: ModelArguments, tokenizer) -> T5ForConditionalGeneration:
    """Return the backbone, with the adapters of an earlier run if model_name_or_path is that run's directory."""
    if arguments.model_name_or_path is None:
        return _from_scratch(arguments, tokenizer)
    loader = partial(T5ForConditionalGeneration.from_pretrained, dtype=getattr(torch, arguments.dtype))
    return usable(load_named("model_name_or_path", arguments.model_name_or_path, loader), tokenizer)


@contextmanager
def model_config_errors():
    """Turn any error inside into a ConfigError that names model_config."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # each wrong size raises an error of its own
        raise ConfigError(f"model_config: {' '.join(str(error).split()) or type(error).__name__}") from None


def configuration_of(arguments: ModelArguments) -> T5Config:
    """Return the backbone's configuration without loading its weights; published sizes do not need the hub."""
    name, given = arguments.model_name_or_path, arguments.model_config
    if name is not None:
        directory = adapter_directory(local(name))
        name = base_of(directory) if directory else name
        published = name.removeprefix("google-t5/") in SHAPES and not Path(name).exists()
        return (
            T5Config.from_shape(name) if published else load_named("model_name_or_path", name, T5Config.from_pretrained)
        )
    if given is None:
        raise ConfigError(NO_MODEL)
    named = arguments.tokenizer_name and load_named("tokenizer_name", arguments.tokenizer_name, _tokenizer_of)
    return _configuration(given, len(named) if named else arguments.tokenizer_vocab_size + SENTINELS)


def check_tasks(model, tasks: dict) -> None:
    """Raise ConfigError for a task without adapters, if each of several tasks has adapters of its own.

    tasks: split -> tasks. If model and run have one task each, the adapters are renamed to the task of the run.
    """
    known, config = model.task_switch.tasks, model.adapter_config
    several = len(known) > 1 or (config is not None and config.per_task and len(tasks["train"]) > 1)
    for split, key in TASK_KEYS.items():
        for task in tasks[split] if several else ():
            if task.name not in known:
                raise ConfigError(f"{key} is {task.name!r}; the model has adapters for: {', '.join(known)}")
    if len(known) == len(tasks["train"]) == 1:
        model.rename_task(tasks["train"][0].name)


def usable(model, tokenizer):
    """Return the model, with outputs as runs need them.

    Raises ConfigError if its embedding has fewer rows than the tokenizer has tokens.
    """
    for part in (model, model.encoder, model.decoder):  # each has a configuration of its own
        part.config.return_dict = True
        part.config.output_attentions = part.config.output_hidden_states = False
    model.generation_config.update(return_dict_in_generate=False, output_attentions=False, output_hidden_states=False)
    rows = model.get_input_embeddings().num_embeddings
    if rows < len(tokenizer):
        raise ConfigError(
            f"tokenizer_name: the tokenizer has {len(tokenizer)} tokens, but the model's embedding has {rows} rows; "
            "choose the model's own tokenizer, or for a new model a larger vocab_size"
        )
    return model


def _from_scratch(arguments: ModelArguments, tokenizer) -> T5ForConditionalGeneration:
    given = arguments.model_config
    if given is None:
        raise ConfigError(NO_MODEL)
    with model_config_errors():
        model = T5ForConditionalGeneration(_configuration(given, len(tokenizer), tokenizer.pad_token_id))
    usable(model, tokenizer)
    model.name_or_path = ""  # the sizes may be those of a named model, the weights are not
    return model


def _configuration(given: dict | str, tokens: int, start: int = 0) -> T5Config:
    """Return the configuration of a named model, of published sizes, or of T5Config fields.

    tokens, start: the vocabulary size and the decoder's start token, unless `given` is a named model or sets them.
    """
    if isinstance(given, str) and given not in SHAPES:
        return load_named("model_config", given, T5Config.from_pretrained)
    vocabulary = {"vocab_size": tokens, "decoder_start_token_id": start}
    if isinstance(given, str):
        return T5Config.from_shape(given, **vocabulary)
    _check_fields(given)
    return T5Config(**vocabulary | given)


def _check_fields(given: dict) -> None:
    """Raise ConfigError for an unknown T5Config field."""
    known = T5Config().to_dict()
    for name in given:
        if name not in known and name not in ("feed_forward_proj", "num_decoder_layers"):
            near = get_close_matches(name, known, 1)
            raise ConfigError(
                f"model_config: unknown T5Config field {name}" + (f"; did you mean {near[0]}?" if near else "")
            )


def load_named(key: str, name: str, loader):
    """Return `loader(name)`; turn a failure into a ConfigError that names the key."""
    here = name in SHIPPED or Path(name).exists()
    if not here and name.startswith("outputs/"):  # where runs write, by default
        raise ConfigError(f"{key} is {name!r}, which does not exist; start the run that writes it first")
    of_hub = HUB_ID.fullmatch(name) and not here
    if of_hub:
        hub_answers()
    try:
        return loader(name)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None
    except (*UNLOADABLE, TypeError, IndexError, AttributeError) as error:  # the last of values in config.json
        allowed = f"allowed: {', '.join(SHIPPED)}, a local directory, or a hub id"
        why = reason(error) if of_hub else one_line(error)
        raise ConfigError(f"{key} is {name!r}, which cannot be loaded ({why}); {allowed}") from None

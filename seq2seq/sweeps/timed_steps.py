"""What a token costs on this machine, by a few timed steps of a method with random weights."""

import json
import time

import torch

from seq2seq.models import configuration_of
from seq2seq.settings import Settings
from third_party.models.t5 import T5Config, T5ForConditionalGeneration
from third_party.models.t5.adapting import modify_model_after_init

TOKENS = 512  # of a timed step on a CPU, on which time grows with tokens; on a GPU a whole batch
LENGTH, ANSWER = 32, 3  # tokens of a source and of a target
QUICK = 0.5  # seconds of a step of the backbone, above which its times stand for those of all methods
Times = tuple[float, float]  # seconds of a token in training and in evaluation

_known: dict[tuple, Times] = {}


def step_times(settings: Settings, threads: int) -> Times:
    """Return the seconds of a token in training and in evaluation, of a run with these settings."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = settings.training.per_device_train_batch_size
    rows = batch * max(1, min(settings.data.max_source_length, 2 * LENGTH) // LENGTH)
    if device.type == "cpu":
        rows = min(rows, TOKENS // LENGTH)
    config = configuration_of(settings.model).to_json_string()
    backbone = _timed((config, None, rows, threads), settings, device)
    if sum(backbone) * rows * LENGTH > QUICK:
        return backbone
    adapter = json.dumps([settings.adapter.to_dict(), len(settings.adapter.tasks)], default=str)
    return _timed((config, adapter, rows, threads), settings, device)


def _timed(key: tuple, settings: Settings, device: torch.device) -> Times:
    """Return the times of what `key` says: the backbone's configuration, the adapters or None, rows and threads."""
    if key not in _known:
        config, adapter, rows, threads = key
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            with torch.random.fork_rng(), device:
                model = T5ForConditionalGeneration(T5Config(**json.loads(config)))
                if adapter is None:
                    model.requires_grad_(False)
                    model.get_encoder().block[0].layer[0].layer_norm.weight.requires_grad_(True)  # as far back as any
                else:
                    modify_model_after_init(model, settings.adapter)
                task = None if adapter is None else settings.data.tasks_of("train")[0]
                _known[key] = _measured(model, task, rows, device)
        finally:
            torch.set_num_threads(before)
    return _known[key]


def _measured(model: T5ForConditionalGeneration, task: str | None, rows: int, device: torch.device) -> Times:
    """Return the seconds of a token in a step, and in answering, without what the first time takes longer."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)
    source, target = torch.randint(3, 100, (rows, LENGTH)), torch.randint(3, 100, (rows, ANSWER))
    times: tuple[list[float], list[float]] = [], []
    for _ in range(3):
        start = _now(device)
        model.train()(input_ids=source, labels=target, task=task).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times[0].append(_now(device) - start)
    for _ in range(2):
        start = _now(device)
        model.eval().generate(source, max_new_tokens=ANSWER, task=task)
        times[1].append(_now(device) - start)
    training, answering = (min(each[1:]) / (rows * LENGTH) for each in times)
    return training, answering


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()

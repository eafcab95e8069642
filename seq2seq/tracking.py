"""A wandb run, or a stand-in that does nothing."""

from contextlib import contextmanager

from transformers import TrainerCallback

from common.errors import ConfigError, one_line
from common.secrets import without_secrets
from seq2seq.layout import INCIDENTAL
from seq2seq.settings import Settings
from third_party.models.t5 import T5ForConditionalGeneration
from third_party.models.t5.key_usage import read_keys
from third_party.models.t5.parameters import count_parameters

LONGEST_NAME = 128  # wandb accepts no longer name of a run or of a group
TASKS = {"train": "task", "validation": "eval_task", "test": "test_task"}
# Keys whose values `main_attributes` gives under another name.
RENAMED = {"task_name", "eval_dataset_name", "test_dataset_name", "model_name_or_path", "num_train_epochs"}


class FakeWandb:
    """A stand-in for a wandb run; nothing is sent or written."""

    def __init__(self):
        self.summary = {}

    def log(self, *args, **kwargs):
        pass

    def finish(self, *args, **kwargs):
        pass


@contextmanager
def tracking(settings: Settings, model: T5ForConditionalGeneration):
    """Start tracking, and finish the run in the end, also after an error: the next one would be logged into it."""
    run, exit_code = start_tracking(settings, model), 1
    try:
        yield run
        exit_code = 0
    finally:
        run.finish(exit_code=exit_code)


def start_tracking(settings: Settings, model: T5ForConditionalGeneration):
    """Start a wandb run if log_to_wandb is true, else return a `FakeWandb`.

    Raises ConfigError if wandb is not installed or cannot start.
    """
    training = settings.training
    if not (training.log_to_wandb and training.should_save):  # only the first process logs
        return FakeWandb()
    try:
        import wandb
    except ImportError:
        raise ConfigError(
            "log_to_wandb is true, but wandb is not installed; pip install wandb, or set log_to_wandb to false"
        ) from None
    try:
        return wandb.init(
            project=training.project_name,
            name=name_of(settings),
            group=training.experiment_name[:LONGEST_NAME],  # the runs of a series differ in seed and rows only
            config=main_attributes(settings, model),
            dir=training.output_dir,
        )
    except (wandb.Error, OSError) as error:
        raise ConfigError(
            f"log_to_wandb is true, but wandb cannot start: {one_line(error)}; to run offline, set WANDB_MODE=offline"
        ) from None


def name_of(settings: Settings) -> str:
    """Return the run's name, "{task}_{experiment_name}"; of many tasks the first and the number of the others."""
    tasks, experiment = settings.data.tasks_of("train"), settings.training.experiment_name
    name = f"{'+'.join(tasks)}_{experiment}"
    if len(name) > LONGEST_NAME and len(tasks) > 1:
        name = f"{tasks[0]}+{len(tasks) - 1}_{experiment}"
    return name[:LONGEST_NAME]


def main_attributes(settings: Settings, model: T5ForConditionalGeneration) -> dict:
    """Return what distinguishes this run, at their defaults too: an attribute has a value in every run of a sweep.

    These are the method, the adapter keys that it reads, the main settings, and any other key that was set.
    model: the adapted model.
    """
    data, training, adapter = settings.data, settings.training, model.adapter_config.to_dict()
    tasks = {name: "+".join(data.tasks_of(split)) for split, name in TASKS.items()}
    counts = count_parameters(model)
    main = {
        "method": settings.method,
        **{name: adapter[name] for name in sorted(read_keys(model.config, model.adapter_config))},
        **{name: task for name, task in tasks.items() if name == "task" or task != tasks["task"]},
        "model": settings.model.model_name_or_path,
        "dtype": settings.model.dtype,
        "learning_rate": training.learning_rate,
        "warmup_steps": training.warmup_steps,
        "lr_scheduler_type": training.lr_scheduler_type.value,
        "weight_decay": training.weight_decay,
        "batch_size": training.train_batch_size * training.gradient_accumulation_steps * training.world_size,
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "processes": training.world_size,
        "max_source_length": data.max_source_length,
        "max_target_length": data.max_target_length,
        "max_train_samples": data.max_train_samples,
        "max_val_samples": data.max_val_samples,
        "max_test_samples": data.max_test_samples,
        "low_resource": data.low_resource,
        "epochs": training.num_train_epochs,
        "seed": training.seed,
        "data_seed": training.data_seed,
        "split_seed": training.split_seed,
        "trainable_parameters": counts["trainable"],
        "backbone_parameters": counts["backbone"],
    }
    known = {*main, *adapter, *RENAMED, *INCIDENTAL}
    others = {name: value for name, value in settings.given.items() if name not in known}
    return without_secrets({**main, **others})


def summary_of(results: dict) -> dict[str, float]:
    """Return the numbers in which runs are compared, from the content of `results.json`, without nesting.

    Names are such as "seconds", "test/mrpc/f1", "parameters/adapters/trainable", "time/seconds_per_step" and
    "memory/encoder.block.0/saved_activations", which is in bytes.
    """
    scores = {
        split: {
            **{task: scored["scores"] for task, scored in entry["tasks"].items()},
            "average_metrics": entry.get("average_metrics"),
        }
        for split, entry in results["splits"].items()
    }
    components = {
        row["name"].replace(" ", "_"): {"trainable": row["trainable"], "total": row["total"]}
        for row in results["components"]
    }
    memory = results.get("memory", {})
    return flattened(
        {
            "seconds": results["seconds"],
            "peak_memory_mib": results["peak_memory_mib"],
            **scores,
            "parameters": {**results["parameters"], **components},
            "time": results.get("time", {}),
            "memory": {**memory, **memory.get("layers", {}), "layers": {}},
        }
    )


def flattened(nested: dict, prefix: str = "") -> dict:
    """Return the values of nested dictionaries by their path, "a/b/c", without those that are None."""
    flat = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{name}/")
        elif value is not None:
            flat[f"{prefix}{name}"] = value
    return flat


class TrackingCallback(TrainerCallback):
    """Sends everything that the trainer logs to the wandb run."""

    def __init__(self, run):
        self.run = run

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            self.run.log(logs or {}, step=state.global_step)

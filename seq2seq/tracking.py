"""A wandb run, or a stand-in that does nothing."""

from transformers import TrainerCallback

from common.errors import ConfigError, one_line
from seq2seq.settings import Settings


class FakeWandb:
    """A stand-in for a wandb run; every call does nothing."""

    def log(self, *args, **kwargs):
        pass

    def finish(self, *args, **kwargs):
        pass


def start_tracking(settings: Settings, counts: dict[str, int]):
    """Start a wandb run if log_to_wandb is true, else return a `FakeWandb`.

    counts: the result of `count_parameters`.
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
            name=training.experiment_name,
            config=main_attributes(settings, counts),
            dir=training.output_dir,
        )
    except (wandb.Error, OSError) as error:
        raise ConfigError(
            f"log_to_wandb is true, but wandb cannot start: {one_line(error)}; to run offline, set WANDB_MODE=offline"
        ) from None


def main_attributes(settings: Settings, counts: dict[str, int]) -> dict:
    """Return what distinguishes this run: the method, adapter keys that differ from their defaults, main settings."""
    training, defaults = settings.training, type(settings.adapter)().to_dict()
    changed = {name: value for name, value in settings.adapter.to_dict().items() if value != defaults[name]}
    return {
        "method": settings.method,
        **changed,
        "task": settings.data.task_name,
        "model": settings.model.model_name_or_path,
        "learning_rate": training.learning_rate,
        "batch_size": training.per_device_train_batch_size * training.gradient_accumulation_steps,
        "epochs": training.num_train_epochs,
        "seed": training.seed,
        "trainable_parameters": counts["trainable"],
        "backbone_parameters": counts["backbone"],
    }


class TrackingCallback(TrainerCallback):
    """Sends everything that the trainer logs to the wandb run."""

    def __init__(self, run):
        self.run = run

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:
            self.run.log(logs or {}, step=state.global_step)

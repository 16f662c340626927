"""Whatever is trained: the trainer and its callbacks, checkpoints, metrics, devices, pictures of a run."""

from ghn_jax.runs.callbacks import Callback, Decision, SaveEvery, TimeLimit, Update, Validation
from ghn_jax.runs.checkpoints import Checkpoints, best_step, restore, saved_steps
from ghn_jax.runs.metrics import MetricWriter, read_metrics
from ghn_jax.runs.pictures import curve_picture
from ghn_jax.runs.progress import LogReporter, Progress, Reporter
from ghn_jax.runs.records import DamagedCheckpointError
from ghn_jax.runs.restarting import Batches, WorkerError
from ghn_jax.runs.trainer import Outcome, StepOutput, Trainer, by_number

__all__ = [
    "Batches",
    "Callback",
    "Checkpoints",
    "DamagedCheckpointError",
    "Decision",
    "LogReporter",
    "MetricWriter",
    "Outcome",
    "Progress",
    "Reporter",
    "SaveEvery",
    "StepOutput",
    "TimeLimit",
    "Trainer",
    "Update",
    "Validation",
    "WorkerError",
    "best_step",
    "by_number",
    "curve_picture",
    "read_metrics",
    "restore",
    "saved_steps",
]

"""Whatever is trained: the trainer and its callbacks, checkpoints, metrics, devices, pictures of a run."""

from ghn_jax.runs.callbacks import Callback, Decision, SaveEvery, TimeLimit, Update, Validation
from ghn_jax.runs.checkpoints import Checkpoints
from ghn_jax.runs.metrics import MetricWriter, read_metrics
from ghn_jax.runs.pictures import curve_picture
from ghn_jax.runs.progress import LogReporter, Progress, Reporter
from ghn_jax.runs.restarting import Batches, WorkerError
from ghn_jax.runs.trainer import Outcome, StepOutput, Trainer, by_number

__all__ = [
    "Batches",
    "Callback",
    "Checkpoints",
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
    "by_number",
    "curve_picture",
    "read_metrics",
]

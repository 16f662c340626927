"""A run on the full training split, which brings new layers at every update, ends well and within its bounds."""

import pathlib
import resource

import numpy as np
import pytest
from tiny_runs import finish, run_command

from ghn_jax.networks.program_cache import Bound
from ghn_jax.runs.metrics import read_metrics

STEPS = 200
OPTIONS = (
    "--preset=ghn2",
    "--dataset=digits",
    "--image-size=8",
    "--batch-size=8",
    "--meta-batch=2",
    "--sampler-workers=1",
    "--hid=8",
    *("--max-shape", "4", "4", "3", "3"),
    "--validation-architectures=0",
    "--test-architectures=0",
)
MOST_BYTES = 6 * 10**9


@pytest.mark.slow
def test_a_full_split_run_stays_within_bounds(tmp_path: pathlib.Path) -> None:
    finish(run_command(*OPTIONS, f"--run-dir={tmp_path}", f"--steps={STEPS}"), timeout=7200)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert np.isfinite([row["loss"] for row in rows if not row["skipped"]]).all()
    assert rows[-1]["layers_compiled"] > STEPS
    limit = Bound.of_system().mappings
    assert limit is None or max(row["memory_mappings"] for row in rows) <= limit
    # Of all subprocesses so far, in kB on Linux: an upper bound for this one.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < MOST_BYTES

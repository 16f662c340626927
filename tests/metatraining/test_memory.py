"""Memory of long runs."""

import pathlib

import pytest
from tiny_runs import finish, run_command

from ghn_jax.runs.metrics import read_metrics

UPDATES = 1_000
MOST_BYTES = 4_000_000_000


@pytest.mark.slow
def test_a_thousand_updates_of_training_networks_stay_small(tmp_path: pathlib.Path) -> None:
    """Two small networks of the train split each: about 4,000 layers are compiled, most of them for new widths.

    Half an hour on two cores with a compilation cache.
    """
    options = (
        "--preset=ghn2",
        "--dataset=digits",
        "--image-size=8",
        "--batch-size=8",
        "--meta-batch=2",
        "--max-nodes=250",
        "--hid=8",
        *("--max-shape", "8", "8", "3", "3"),
        f"--steps={UPDATES}",
        "--validation-architectures=0",
        "--test-architectures=0",
        f"--run-dir={tmp_path}",
    )
    finish(run_command(*options), timeout=5400)
    rows = read_metrics(tmp_path)
    most, mappings = (max(row[name] for row in rows) for name in ("resident_bytes", "memory_mappings"))
    layers = f"{rows[-1]['layers_dropped']} of {rows[-1]['layers_compiled']} layers dropped"
    print(f"{most / 1e9:.2f} GB at most, {mappings:,} mappings, {layers}")
    assert len(rows) == UPDATES
    assert most < MOST_BYTES

"""The smallest meta-training runs, as subprocesses."""

import os
import pathlib
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]

TINY = (
    "--preset=demo",
    "--image-size=8",
    "--batch-size=16",
    "--demo-width=8",
    "--num-architectures=2",
    "--meta-batch=2",
    "--sampler-workers=0",
    "--hid=8",
    *("--max-shape", "4", "4", "3", "3"),
    "--warmup-steps=0",
    "--minutes=60",
    "--validation-architectures=0",
    "--test-architectures=0",
)
"""Two networks of width 8, over and over."""


def environment(**changes: str) -> dict[str, str]:
    """Of a subprocess that imports the package from this checkout."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": paths, **changes}


def run_command(*options: str, script: str = "meta_train.py", **changes: str) -> subprocess.Popen[str]:
    """An experiment with the options given; `changes` are to its environment."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "experiments" / script), *options],
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start(folder: pathlib.Path, *options: str, **changes: str) -> subprocess.Popen[str]:
    """`run_command` with the tiny options and those given."""
    return run_command(*TINY, f"--run-dir={folder}", *options, **changes)


def finish(process: subprocess.Popen[str], timeout: float = 1800) -> str:
    """What a run said; fails if it failed or takes longer than `timeout` seconds (it is killed then)."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(process.communicate()[0]) from None
    assert process.returncode == 0, output
    return output


def weights(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The trained weights of a run."""
    with np.load(folder / "ghn.npz") as archive:
        return {name: archive[name] for name in archive.files if name != "config.json"}

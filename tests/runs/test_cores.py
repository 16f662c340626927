"""Cores that programs use when networks run side by side: looked at in new processes, where XLA starts anew."""

import os
import subprocess
import sys

import pytest

from ghn_jax.runs.cores import available_cores

DIVIDE = "from ghn_jax.runs.cores import divide_cores; divide_cores({})"
COMMAND = """
from ghn_jax.metatraining.command import set_up
from ghn_jax.metatraining.config import RunConfig
set_up(RunConfig(threads={}, compilation_cache=""))
"""
COUNT = """
import pathlib
import jax.numpy as jnp
jnp.ones((8, 8)).sum().block_until_ready()
names = [(task / "comm").read_text() for task in pathlib.Path("/proc/self/task").iterdir()]
print(sum("XLAEigen" in name for name in names))
"""

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in Linux's /proc")


def threads_of_xla(start: str, networks: int, **environment: str) -> int:
    """Threads over which XLA's CPU client spreads a program, in a process that starts with dividing its cores."""
    variables = {name: value for name, value in os.environ.items() if not name.endswith("NPROC")}
    command = [sys.executable, "-c", start.format(networks) + COUNT]
    found = subprocess.run(command, env=variables | environment, capture_output=True, text=True, check=True)
    return int(found.stdout)


def test_networks_side_by_side_share_the_cores() -> None:
    cores = available_cores()
    assert threads_of_xla(DIVIDE, 1) == cores
    assert threads_of_xla(DIVIDE, cores) == 1
    assert threads_of_xla(DIVIDE, 3 * cores) == 1
    assert threads_of_xla(DIVIDE, cores, NPROC="3", PJRT_NPROC="3") == 3


def test_meta_training_divides_the_cores_among_its_threads() -> None:
    assert threads_of_xla(COMMAND, available_cores()) == 1

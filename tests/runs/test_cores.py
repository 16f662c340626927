"""Cores that programs use when networks run side by side: looked at in new processes, where XLA starts anew."""

import os
import subprocess
import sys

import pytest

COUNT = """
import pathlib, sys
import jax.numpy as jnp
from ghn_jax.runs.cores import divide_cores
divide_cores(int(sys.argv[1]))
jnp.ones((8, 8)).sum().block_until_ready()
names = [(task / "comm").read_text() for task in pathlib.Path("/proc/self/task").iterdir()]
print(sum("XLAEigen" in name for name in names))
"""


def threads_of_xla(networks: int, **environment: str) -> int:
    """Threads over which XLA's CPU client spreads a program, in a process that divides its cores."""
    variables = {name: value for name, value in os.environ.items() if not name.endswith("NPROC")}
    command = [sys.executable, "-c", COUNT, str(networks)]
    found = subprocess.run(command, env=variables | environment, capture_output=True, text=True, check=True)
    return int(found.stdout)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in Linux's /proc")
def test_networks_side_by_side_share_the_cores() -> None:
    cores = len(os.sched_getaffinity(0))
    assert threads_of_xla(1) == cores
    assert threads_of_xla(cores) == 1
    assert threads_of_xla(3 * cores) == 1
    assert threads_of_xla(cores, NPROC="3", PJRT_NPROC="3") == 3

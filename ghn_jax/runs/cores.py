"""Cores of a CPU: how many of them a compiled program uses when networks run side by side."""

import os

import jax

_THREADS_OF_XLA = ("NPROC", "PJRT_NPROC")
"""Environment variables from which XLA's CPU client takes its number of threads, older and newer name."""


def available_cores() -> int:
    """Cores that this process may use, which containers and batch systems make fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def divide_cores(networks: int) -> None:
    """Gives each of `networks` that will run side by side on a CPU a part of its cores; for commands.

    By default every program spreads over all cores, and those that run at once wait for each other's threads: 16
    networks of DeepNets-1M took 4.6 s on two cores two at a time, and 3.6 s with a core each (jax 0.10.1;
    ``python experiments/benchmark.py networks``). Single programs, as those of the hypernetwork, become slower instead.
    Sums are added in another order, as with another number of cores.

    Has an effect before JAX's first computation only, and on CPUs only. What the user has set in the environment stays.

    Args:
      networks: that run at once, each in a thread of its own; 1 changes nothing.
    """
    if networks == 1:
        return
    for name in _THREADS_OF_XLA:
        os.environ.setdefault(name, str(max(1, available_cores() // networks)))
    # Computations then run in the thread that asks for them; XLA would put all in a queue for as many threads.
    jax.config.update("jax_cpu_enable_async_dispatch", False)

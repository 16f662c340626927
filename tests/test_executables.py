"""Functions compiled once for each kind of arguments: results, what is compiled again, memory, use inside a trace."""

import os
import subprocess
import sys
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ghn_jax.executables import Executables
from ghn_jax.runs.memory import ProcessMemory


def counted(**options: Any) -> tuple[Executables, list[tuple[int, ...]]]:
    """A function, and the shapes that it was traced for."""
    traced = []

    def scaled(tree: dict[str, jax.Array], factor: np.int32) -> jax.Array:
        traced.append(tree["x"].shape)
        return tree["x"] * factor + tree["y"]

    return Executables(scaled, **options), traced


def test_each_kind_of_arguments_is_compiled_once() -> None:
    function, traced = counted()
    for size in (2, 3, 2, 3):
        for factor in (2, 5):
            x = np.arange(size, dtype=np.float32)
            found = function({"x": jnp.asarray(x), "y": x}, np.int32(factor))
            np.testing.assert_array_equal(found, x * factor + x)
    assert traced == [(2,), (3,)]
    there = jax.device_put(x, jax.devices()[0])  # committed: programs for others would refuse what lies elsewhere
    function({"x": there, "y": there}, np.int32(2))
    assert traced == [(2,), (3,), (3,)]


def test_several_threads_compile_once() -> None:
    function, traced = counted()
    x = jnp.ones(4)
    threads = [threading.Thread(target=function, args=({"x": x, "y": x}, np.int32(2))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert traced == [(4,)]


def test_inside_a_transformation_it_is_the_function() -> None:
    function, _ = counted(options={"xla_backend_optimization_level": 0})
    x = jnp.arange(3.0)
    slope = jax.jit(jax.grad(lambda x: function({"x": x, "y": x}, np.int32(2)).sum()))(x)
    np.testing.assert_array_equal(slope, np.full(3, 3.0))


def test_buffers_are_given_up() -> None:
    def added(total: jax.Array, x: jax.Array) -> jax.Array:
        return total + x

    total, x = jnp.zeros(100), jnp.ones(100)
    np.testing.assert_array_equal(Executables(added, donate=(0,))(total, x), np.ones(100))
    assert total.is_deleted()
    assert not x.is_deleted()


MEASURE = """
import functools, gc, sys
import jax, numpy as np
from ghn_jax.executables import Executables
from ghn_jax.runs.memory import ProcessMemory, give_back

def resident():
    gc.collect()
    give_back()
    return ProcessMemory()()["resident_bytes"]

def tripled(x):
    return 3 * x

make = {"jit": lambda: jax.jit(functools.partial(tripled)), "own": lambda: Executables(tripled)}[sys.argv[1]]
held = []
for size in range(1, 81):
    held.append(make())
    held[-1](np.zeros(size, np.float32))
    if size == 20:
        start = resident()
print(resident() - start)
"""


@pytest.mark.skipif(not ProcessMemory()(), reason="this system does not tell what a process takes")
def test_programs_take_less_than_those_of_jit() -> None:
    """Of sixty, each way in a new process: a sixth with jax 0.10.1, two thirds with 0.12."""

    def bytes_of(way: str) -> int:
        environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "0"}
        command = [sys.executable, "-c", MEASURE, way]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return int(done.stdout)

    own, jitted = bytes_of("own"), bytes_of("jit")
    assert own < 0.75 * jitted, (own, jitted)

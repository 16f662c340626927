"""Functions compiled once for each kind of arguments: results, what is compiled again, memory, use inside a trace."""

import functools
import gc
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


@pytest.mark.skipif(not ProcessMemory()(), reason="this system does not tell what a process takes")
def test_programs_take_less_than_half_of_what_jit_takes() -> None:
    """A program is 0.3 MB, and 1.6 with what `jax.jit` keeps beside it: seen by 60 of each."""

    def bytes_of(make: Any) -> int:
        held, start = [], ProcessMemory()
        start()
        gc.collect()
        before = ProcessMemory()()["resident_bytes"]
        for size in range(1, 61):
            held.append(make())
            held[-1](np.zeros(size, np.float32))
        gc.collect()
        ProcessMemory()()
        return ProcessMemory()()["resident_bytes"] - before

    def tripled(x: jax.Array) -> jax.Array:
        return 3 * x

    bytes_of(lambda: Executables(tripled))  # what is there once
    assert 2 * bytes_of(lambda: Executables(tripled)) < bytes_of(lambda: jax.jit(functools.partial(tripled)))

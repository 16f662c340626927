"""Jitted functions of which nothing but the executables is kept."""

import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import jax
from jax.core import Tracer

Result = TypeVar("Result")


class Executables(Generic[Result]):
    """A function compiled once for each kind of arguments, as by `jax.jit`, in less memory.

    `jax.jit` keeps beside each executable what it was lowered to, 1.3 MB for the smallest program (jax 0.10.1; 0.1 with
    0.12), which counts for functions of hundreds of programs. Inside another program or a transformation it is the
    function itself. Safe in several threads, of which one compiles.

    Args:
      function: of pytrees of arrays.
      donate: places of the arguments whose buffers are given up.
      options: of XLA.
    """

    def __init__(
        self,
        function: Callable[..., Result],
        donate: tuple[int, ...] = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._function, self._donate, self._options = function, donate, options
        self._programs: dict[tuple, Callable[..., Result]] = {}
        self._lock = threading.Lock()

    def __call__(self, *arguments: Any) -> Result:
        """The function's result."""
        leaves = jax.tree.leaves(arguments)
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            return self._function(*arguments)
        kind = tuple(map(_kind, leaves))
        program = self._programs.get(kind) or self._compiled(kind, arguments)
        return program(*arguments)

    def _compiled(self, kind: tuple, arguments: tuple) -> Callable[..., Result]:
        with self._lock:
            if kind not in self._programs:
                # JAX keeps what it traced and lowered as long as the function lives: this one does not.
                own = functools.partial(self._function)
                options = None if self._options is None else dict(self._options)
                lowered = jax.jit(own, donate_argnums=self._donate).lower(*arguments)
                self._programs[kind] = lowered.compile(options)
            return self._programs[kind]


def _kind(leaf: Any) -> tuple:
    """What a program depends on: shape, type and, if it is committed to any, devices."""
    committed = isinstance(leaf, jax.Array) and leaf.committed
    return leaf.shape, leaf.dtype, leaf.sharding if committed else None

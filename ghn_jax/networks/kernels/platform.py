"""Which formulations layers are traced with."""

import contextlib
import contextvars
from collections.abc import Callable, Generator

import jax

_PLATFORM: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


def on_cpu() -> bool:
    """Whether layers traced now take the CPU's convolutions and attention; else they take XLA's own."""
    return _PLATFORM.get() == "cpu"


def lean() -> bool:
    """Whether layers traced now have backward passes of their own, which keep as little as they can."""
    return _PLATFORM.get() is not None


STATISTICS = "statistics"
"""Name (`jax.ad_checkpoint.checkpoint_name`) of what is small and costs a pass over an array."""


def keeping_arguments(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`function`, of arrays; where `lean`, its backward pass keeps nothing but its arguments and `STATISTICS`.

    What else the backward pass reads is computed again: for what is elementwise. The result of a convolution or of a
    matrix product is not among it, so that XLA drops the product itself from the backward pass.
    """
    policy = jax.checkpoint_policies.save_only_these_names(STATISTICS)
    return jax.checkpoint(function, prevent_cse=False, policy=policy) if lean() else function


@contextlib.contextmanager
def compiling_for(platform: str | None) -> Generator[None]:
    """Layers traced inside are formulated for `platform`.

    "cpu" has formulations of its own; any other name ("gpu", "cuda", "rocm", "tpu") takes XLA's convolutions. With
    either, backward passes keep as little as they can. Outside, and for None, a layer is plain: tracers then see one
    primitive for each operation of the architecture.
    """
    token = _PLATFORM.set(platform)
    try:
        yield
    finally:
        _PLATFORM.reset(token)

"""Which formulations layers are traced with."""

import contextlib
import contextvars
from collections.abc import Iterator

_PLATFORM: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


def on_cpu() -> bool:
    """Whether layers traced now take the CPU's formulations; else they are XLA's own convolutions and reductions."""
    return _PLATFORM.get() == "cpu"


@contextlib.contextmanager
def compiling_for(platform: str | None) -> Iterator[None]:
    """Layers traced inside take the formulations of `platform` ("cpu", "gpu", "tpu"); None is XLA's own everywhere.

    Outside, a layer is plain: tracers then see one primitive for each operation of the architecture.
    """
    token = _PLATFORM.set(platform)
    try:
        yield
    finally:
        _PLATFORM.reset(token)

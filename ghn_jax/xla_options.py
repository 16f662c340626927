"""Options of XLA that keep CPU programs small; which of them exist depends on its version."""

import functools
from collections.abc import Mapping
from typing import Any

import jax

ONE_OBJECT: Mapping[str, Any] = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
"""By default XLA makes an object of each fusion, which costs time and three memory mappings; so it makes one of all."""


def known_options(**options: Any) -> dict[str, Any]:
    """Those of the compiler options (for ``jax.jit`` or ``Lowered.compile``) that this version of XLA has."""
    return {name: value for name, value in options.items() if _is_known(name, value)}


@functools.cache
def _is_known(name: str, value: Any) -> bool:
    try:
        jax.jit(lambda: 0.0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True

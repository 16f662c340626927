"""Strict modes and the shared compilation cache of all tests."""

import os
import pathlib
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("MPLBACKEND", "Agg")
# Loading a cached program prints two long lines about features that LLVM adds on its own; they mean nothing here.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(autouse=True, scope="module")
def _layers_of_one_module() -> Iterator[None]:
    """Compiled layers, which all runners of a process share, are dropped after each module: workers stay small."""
    yield
    cache = sys.modules.get("ghn_jax.networks.program_cache")
    if cache is not None:
        cache.shared_programs().clear()

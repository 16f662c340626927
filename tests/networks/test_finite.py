"""No value that a network computes is lost to its type: what float64 finds in float32's range is finite in others."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ghn_jax.deepnets import NetworkArgs
from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.graphs.param_spec import Path
from ghn_jax.networks import Runner, network_plan
from ghn_jax.networks.schedule import schedule

SPLITS = ("train", "val", "test", "wide", "deep", "dense", "bnfree", "search")
NETWORKS, PART = 300, 30
IMAGES = (4, 12, 12, 3)


def network(number: int) -> NetworkArgs:
    """A network of each split in turn, narrow and of one width, so that networks share most of their layers."""
    args = sample_args(SPLITS[number % len(SPLITS)], number // len(SPLITS))[0]
    return args.replace(C=8, C_mult=1, fc_dim=16, image_size=IMAGES[1])


def he_parameters(args: NetworkArgs, seed: int) -> dict[Path, np.ndarray]:
    """Kernels of He's scale, in float64; scales one, biases and tables small."""
    rng = np.random.default_rng(seed)
    images = jax.ShapeDtypeStruct(IMAGES, jnp.float32)
    params = {}
    for path, leaf in (
        param for step in schedule(network_plan(args), images, False, False, None) for param in step.params
    ):
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if path[-1] == "kernel" else 0.02
        params[path] = rng.normal(size=leaf.shape) * scale + (path[-1] == "scale")
    return params


LARGEST = float(np.finfo(np.float32).max)
"""Of float32, about that of bfloat16 too."""


def non_finite(
    runner: Runner, args: NetworkArgs, params: dict[Path, np.ndarray], dtype: str, seed: int, *, largest: float = np.inf
) -> set[str]:
    """Names of what is not finite, or beyond `largest`, after a forward and a backward pass."""
    rng = np.random.default_rng(seed)
    exact = dtype == "float64"
    with jax.enable_x64(True) if exact else contextlib.nullcontext():
        images = jnp.asarray(rng.normal(size=IMAGES), "float64" if exact else "float32")
        labels = jnp.asarray(rng.integers(0, 10, IMAGES[0]), "int32")
        own: Any = {path: jnp.asarray(value, images.dtype) for path, value in params.items()}
        found = runner.loss_and_grads(network_plan(args), own, images, labels, rng=jax.random.key(seed), dtype=dtype)
        loss, logits, gradients = jax.device_get(found)
    everything = {"loss": loss, "logits": logits, **{"/".join(path): value for path, value in gradients.items()}}
    return {name for name, value in everything.items() if not (np.isfinite(value) & (np.abs(value) <= largest)).all()}


@pytest.mark.slow  # 300 networks in two types: 640 programs, shared by all of them
@pytest.mark.parametrize("first", range(0, NETWORKS, PART))
def test_what_is_finite_in_float64_is_finite_in_other_types(first: int) -> None:
    runner = Runner()
    for number in range(first, first + PART):
        args = network(number)
        params = he_parameters(args, number)
        lost = {dtype: non_finite(runner, args, params, dtype, number) for dtype in ("float32", "bfloat16")}
        if any(lost.values()):
            exact = non_finite(runner, args, params, "float64", number, largest=LARGEST)
            if "logits" in exact:  # they do not hold what it computes: without BN, gates multiply what they gate
                assert args.norm is None, (number, args)
                continue
            assert all(names <= exact for names in lost.values()), (number, args, lost, exact)


@pytest.mark.slow
def test_a_value_that_no_type_holds_is_found() -> None:
    """What the test above looks for: an overflow of float32 that float64 does not have."""
    runner, args = Runner(), network(0)
    params = he_parameters(args, 0)
    huge = {path: value * (1e25 if path[-1] == "kernel" else 1) for path, value in params.items()}
    assert non_finite(runner, args, params, "float32", 0) == set()
    assert non_finite(runner, args, huge, "float32", 0)
    assert not non_finite(runner, args, huge, "float64", 0)

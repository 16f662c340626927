"""Programs of every kind of layer that a network can have."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from network_args import small_args

from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.operations import OPS
from ghn_jax.networks import network_plan
from ghn_jax.networks.programs import ProgramKey
from ghn_jax.networks.schedule import schedule


def networks() -> list[NetworkArgs]:
    """Small networks with every op at both strides, all stems, projections of inputs, heads, with and without BN."""
    nets = [small_args(((op, 1), ("conv_1x1", 0)), n_cells=3) for op in OPS if op not in ("none", "msa")]
    ends: list[dict[str, Any]] = [
        {"stem_type": 1},
        {"stem_pool": True, "fc_layers": 2, "glob_avg": False},
        {"norm": None},
        {"image_size": 224},
        {"image_size": 224, "stem_type": 1},
    ]
    nets += [small_args((("conv_3x3", 1), ("none", 0)), **changes) for changes in ends]
    nets.append(small_args((("conv_1x1", 1), ("none", 0)) * 2, concat=(2, 3)))
    nets.append(small_args((("max_pool_3x3", 1), ("max_pool_3x3", 0)), stem_type=1, preproc=False, C_mult=1))
    transformer = small_args((("msa", 1), ("skip_connect", 0)), preproc=False, C_mult=1)
    return [*nets, transformer, transformer.replace(image_size=224)]


@functools.cache
def program_keys(dtype: Any = jnp.float32, *, backward: bool = True, train: bool = True) -> dict[str, ProgramKey]:
    """One for each layer of those networks, by name of op and number."""
    found: dict[Any, tuple[str, ProgramKey]] = {}
    for args in networks():
        shape = jax.ShapeDtypeStruct((2, args.image_size // 2, args.image_size // 2, 3), dtype)
        for step in schedule(network_plan(args), shape, backward, train, None):
            found.setdefault(step.key.layer, (step.kind, step.key))
    return {f"{kind}-{number}": key for number, (kind, key) in enumerate(found.values())}

"""Types in which sums are taken."""

from typing import Any

import jax.numpy as jnp


def accumulator(dtype: Any) -> Any:
    """Type of sums, statistics and logits for data of `dtype`: float32, or float64 for float64."""
    return jnp.promote_types(dtype, jnp.float32)

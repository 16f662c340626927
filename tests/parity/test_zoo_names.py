"""Parameter paths and shapes of the zoo's small forms against the names of the release's predicted tensors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from parity_data import HAS_PARITY, fixture_params, needs_parity

from ghn_jax.deepnets.files.names import flax_path
from ghn_jax.networks import zoo

CASES = sorted(name for name in fixture_params() if name.startswith("torchvision/")) if HAS_PARITY else []


def flax_shape(shape):
    """OIHW to HWIO, (out, in) to (in, out); the layer scale (C, 1, 1) of ConvNeXt to (C,)."""
    if len(shape) == 4:
        return (*shape[2:], shape[1], shape[0])
    return (shape[0],) if len(shape) == 3 else tuple(reversed(shape))


@needs_parity
@pytest.mark.parametrize("case", CASES)
def test_paths_and_shapes(case):
    model = zoo.create(case.removeprefix("torchvision/"), num_classes=10, small_images=True)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    predicted = fixture_params()[case]["ghn2_tiny"]
    expected = {flax_path(name, len(entry["shape"])): flax_shape(entry["shape"]) for name, entry in predicted.items()}
    shapes = flatten_dict(jax.tree.map(np.shape, variables["params"]), is_leaf=lambda _, node: isinstance(node, tuple))
    assert shapes == expected


@needs_parity
def test_there_are_seventeen_cases():
    assert len(CASES) == 17

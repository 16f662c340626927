"""`ParamSpec`: shapes in the reference's order, and its errors."""

import re

import pytest

from ghn_jax.graphs import ParamSpec, Primitive, Role
from ghn_jax.graphs.param_spec import KERNEL_ROLES, VECTOR_ROLES


@pytest.mark.parametrize(
    ("shape", "axes", "rank", "canonical"),
    [
        ((3, 5, 16, 8), "HWIO", 4, (8, 16, 3, 5)),
        ((3, 16, 8), "WIO", 3, (8, 16, 1, 3)),
        ((64, 10), "IO", 2, (10, 64, 1, 1)),
        ((10, 64), "OI", 2, (10, 64, 1, 1)),
        ((64, 8, 4), "IOO", 2, (32, 64, 1, 1)),
        ((8, 4, 64), "IIO", 2, (64, 32, 1, 1)),
        ((32,), "O", 1, (32, 1, 1, 1)),
        ((8, 4), "OO", 1, (32, 1, 1, 1)),
        ((1, 11, 12, 64), "OHWI", 4, (1, 64, 11, 12)),
    ],
)
def test_canonical_shape(shape, axes, rank, canonical):
    spec = ParamSpec(("layer", "leaf"), shape, axes, Role.KERNEL, 1)
    assert spec.canonical_shape == canonical
    assert spec.rank == rank
    assert spec.size == canonical[0] * canonical[1] * canonical[2] * canonical[3]


def test_names():
    assert ParamSpec(("a", "b", "kernel"), (1, 1), "IO", Role.KERNEL, 1).name == "a/b/kernel"
    assert ParamSpec(("a", "kernel"), (1, 1), "IO", Role.KERNEL, 1, index=(2, 0)).name == "a/kernel[2, 0]"


def test_every_role_is_a_kernel_or_a_vector():
    assert frozenset(Role) == KERNEL_ROLES | VECTOR_ROLES
    assert not KERNEL_ROLES & VECTOR_ROLES


FITTING = {
    Role.KERNEL: {Primitive.CONV, Primitive.SEP_CONV, Primitive.DIL_CONV},
    Role.CLASSIFIER_KERNEL: {Primitive.CONV},
    Role.SCALE: {Primitive.BN, Primitive.LN},
    Role.NORM_BIAS: {Primitive.BN, Primitive.LN},
    Role.BIAS: {Primitive.BIAS},
    Role.CLASSIFIER_BIAS: {Primitive.BIAS},
    Role.POSITION: {Primitive.POS_ENC},
}


@pytest.mark.parametrize("primitive", Primitive)
@pytest.mark.parametrize("role", Role)
def test_role_fits_the_node(role, primitive):
    spec = ParamSpec(("layer", "leaf"), (4,), "O", role, 3)
    if primitive in FITTING[role]:
        spec.check(primitive, "net")
        return
    message = (
        f"parameter 'layer/leaf' of architecture 'net': a {role.value} cannot be decoded from a "
        f"{primitive.label} node (node 3)"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        spec.check(primitive, "net")


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ((3, 3, 8), "HWIO", "axes 'HWIO' do not describe shape (3, 3, 8)"),
        ((3, 8), "XO", "axes 'XO' do not describe shape (3, 8)"),
        ((0, 8), "IO", "every axis must be at least 1, got shape (0, 8)"),
        ((3, -1), "IO", "every axis must be at least 1, got shape (3, -1)"),
    ],
)
def test_bad_layout(shape, axes, message):
    spec = ParamSpec(("layer", "kernel"), shape, axes, Role.KERNEL, 1)
    with pytest.raises(ValueError, match=re.escape(f"parameter 'layer/kernel' of architecture 'net': {message}")):
        spec.check(Primitive.CONV, "net")

"""Outputs that need no computation are handed back, and everything else is computed as before."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from jax.extend import core
from layer_programs import program_keys

from ghn_jax.networks.kernels.platform import compiling_for
from ghn_jax.networks.lean import trace_lean
from ghn_jax.networks.programs import signature, trace_program

TABLE = np.arange(3, dtype=np.float32)


def shape_of(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def test_arguments_constants_and_repeats_are_handed_back():
    x, y = jnp.arange(3.0), jnp.ones(3)

    def function(pair):
        one, other = pair
        total = one + other
        return {"a": other, "b": total, "c": jnp.asarray(TABLE), "d": total, "e": jnp.zeros(()), "f": one * 2}

    lean, tree = trace_lean(function, (shape_of(x), shape_of(y)))
    assert len(jax.eval_shape(lean.compute, x, y)) == 2  # the total and the product
    outputs = lean.compile()(x, y)
    assert outputs[0] is y
    assert outputs[1] is outputs[3]
    chex.assert_trees_all_equal(jax.tree.unflatten(tree, outputs), function((x, y)))


def test_nothing_to_compute():
    x = jnp.arange(3.0)
    lean, _ = trace_lean(lambda x: (x, x), shape_of(x))
    assert jax.eval_shape(lean.compute, x) == []
    one, other = lean.compile()(x)
    assert one is other is x


@pytest.mark.parametrize("name", program_keys())
def test_programs_of_a_layer_return_what_they_compute_once(name):
    """No output is an argument, a constant or another output."""
    traced = trace_program(program_keys()[name], "cpu")
    for lean in (traced.forward, traced.backward):
        assert lean is not None
        jaxpr = jax.make_jaxpr(lean.compute)(*lean.arguments).jaxpr
        outputs = jaxpr.outvars
        assert not any(isinstance(output, core.Literal) for output in outputs)
        assert len(set(outputs)) == len(outputs)
        assert not set(outputs) & {*jaxpr.invars, *jaxpr.constvars}


def one_of_each_kind():
    """Names of the smallest."""
    return {name.rpartition("-")[0]: name for name in reversed(program_keys())}.values()


def plain_programs(key):
    """Output and vjp as one program, and the vjp applied as another."""
    paths = [path for path, _ in signature(key.layer, key.inputs).params]

    @jax.jit
    def forward(params, inputs, rng):
        def apply(params, wanted):
            given = iter(wanted)
            merged = [next(given) if want else x for want, x in zip(key.wanted, inputs, strict=True)]
            tree = {"params": unflatten_dict(dict(zip(paths, params, strict=True)))}
            rngs = {"dropout": rng[0]} if rng else None
            with compiling_for("cpu"):
                return key.layer.apply(tree, *merged, train=key.random, rngs=rngs)

        return jax.vjp(apply, params, [x for want, x in zip(key.wanted, inputs, strict=True) if want])

    return forward, jax.jit(lambda vjp, cotangent: vjp(cotangent))


@pytest.mark.parametrize("name", one_of_each_kind())
def test_a_layer_equals_the_plain_vjp(name):
    """Bit for bit."""
    key = program_keys()[name]
    numbers = np.random.default_rng(0)
    params, inputs = (
        [jnp.asarray(numbers.normal(size=leaf.shape), leaf.dtype) for leaf in leaves]
        for leaves in ([leaf for _, leaf in signature(key.layer, key.inputs).params], key.inputs)
    )
    rng = [jax.random.key(0)] * key.random
    traced = trace_program(key, "cpu")
    assert traced.backward is not None
    ours, *residuals = traced.forward.compile()(*params, *inputs, *rng)
    cotangent = jnp.asarray(numbers.normal(size=ours.shape), ours.dtype)
    forward, backward = plain_programs(key)
    theirs, vjp = forward(params, inputs, rng)
    expected = [theirs, *jax.tree.leaves(backward(vjp, cotangent))]
    for one, other in zip([ours, *traced.backward.compile()(*residuals, cotangent)], expected, strict=True):
        np.testing.assert_array_equal(one, other)

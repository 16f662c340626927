"""Every program of the runner lowers for GPUs and TPUs: what of "runs there" can be known without such a device."""

import jax
import jax.numpy as jnp
import pytest
from layer_programs import program_keys

from ghn_jax.deepnets.operations import OPS
from ghn_jax.networks.programs import trace_program

PLATFORMS = {"gpu": "cuda", "tpu": "tpu"}


def test_every_kind_of_layer_is_among_them():
    kinds = {name.rpartition("-")[0] for name in program_keys()}
    ends = {"stem", "preproc", "stride", "sum", "concat", "classifier"}
    assert kinds == ends | set(OPS) - {"none"}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", program_keys())
def test_programs_lower(name, dtype, platform):
    traced = trace_program(program_keys(dtype)[name], platform)
    assert traced.backward is not None
    for lean in (traced.forward, traced.backward):
        exported = jax.export.export(jax.jit(lean.compute), platforms=[PLATFORMS[platform]])(*lean.arguments)
        assert exported.platforms == (PLATFORMS[platform],)
        assert [out.shape for out in exported.out_avals] == [
            shape.shape for shape in jax.eval_shape(lean.compute, *lean.arguments)
        ]

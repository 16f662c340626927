"""Every program of the hypernetwork lowers for GPUs and TPUs, and every product in it is in full precision."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from small_graphs import TINY, mixed_graph

from ghn_jax.hypernet import GHN, GHNConfig, init_ghn, prepare, programs
from ghn_jax.hypernet.decoders.centred import CentredDecoderConfig
from ghn_jax.hypernet.decoders.low_rank import LowRankDecoderConfig
from ghn_jax.hypernet.decoders.mlp import MLPDecoderConfig
from ghn_jax.hypernet.encoders.gated_gnn import GatedGNNConfig
from ghn_jax.hypernet.encoders.graphormer import GraphormerConfig
from ghn_jax.hypernet.encoders.mlp import MLPEncoderConfig
from ghn_jax.hypernet.ghn import split_weights

CONFIGS = {
    "ghn2": TINY,
    "ghn1": TINY.replace(normalization="none", encoder=GatedGNNConfig(virtual_edges=False, layernorm=False)),
    "mlp": TINY.replace(encoder=MLPEncoderConfig(), decoder=MLPDecoderConfig()),
    "ghn3": TINY.replace(encoder=GraphormerConfig(layers=2, heads=2), decoder=CentredDecoderConfig()),
    "low rank": TINY.replace(decoder=LowRankDecoderConfig(rank=2, width=400)),
}
HIGHEST = jax.lax.Precision.HIGHEST


def programs_of(config: GHNConfig) -> Iterator[tuple[str, Callable, tuple]]:
    """Name, function and arguments (shapes) of every program of a prediction and its vjp, each once."""
    seen = set()
    for name, function, arguments in _all_programs(config):
        key = (name, str(jax.tree.map(jnp.shape, arguments)))
        if key not in seen:
            seen.add(key)
            yield name, function, arguments


def _all_programs(config: GHNConfig) -> Iterator[tuple[str, Callable, tuple]]:
    ghn = GHN(config)
    variables = jax.eval_shape(lambda: init_ghn(ghn, jax.random.key(0)))
    encoder, decoder = split_weights(variables)
    prepared = prepare(config, [mixed_graph()])
    batch = jax.tree.map(jnp.asarray, prepared.batch)
    states = jax.eval_shape(programs.embed_program(ghn), variables, batch)

    def embed_backward(weights: Any, batch: Any, cotangent: jax.Array) -> Any:
        return programs.apply_vjp(programs.embed_with_vjp_program(ghn)(weights, batch)[1], cotangent)

    yield "embed", programs.embed_program(ghn), (variables, batch)
    yield "embed with vjp", embed_backward, (encoder, batch, states)
    for chunk in prepared.chunks:
        name = f"{chunk.key} x {len(chunk.nodes)}"
        rows = jax.eval_shape(programs.take_rows, states, chunk.nodes)
        decoded = jax.eval_shape(programs.decode_program(ghn, chunk.key), decoder, rows)
        yield "take rows", programs.take_rows, (states, chunk.nodes)
        yield f"decode {name}", programs.decode_program(ghn, chunk.key), (decoder, rows)
        backward = programs.decode_backward_program(ghn, chunk.key)
        yield f"decode backward {name}", backward, (decoder, decoder, rows, decoded)
        yield "add rows", programs.add_rows, (states, rows, chunk.nodes)
        for piece in chunk.pieces:
            count, start = len(piece.members), np.int32(piece.start)
            fit = programs.fit_program(ghn, piece.kind, count)
            tensors = jax.eval_shape(fit, decoded, start)
            assert [tensor.shape for tensor in tensors] == [member.spec.shape for member in piece.members]
            needs_decoded, fit_backward = programs.fit_backward(ghn, piece.kind, count, decoded.shape[1:])
            yield f"fit {count} x {piece.kind}", fit, (decoded, start)
            arguments = (decoded, decoded if needs_decoded else None, start, tensors)
            yield f"fit backward {count} x {piece.kind}", fit_backward, arguments


@pytest.mark.parametrize("name", CONFIGS)
def test_every_program_lowers_for_gpus_and_tpus(name: str) -> None:
    count = 0
    for what, function, arguments in programs_of(CONFIGS[name]):
        exported = jax.export.export(jax.jit(function), platforms=("cuda", "tpu"))(*arguments)
        assert exported.platforms == ("cuda", "tpu"), what
        count += 1
    assert count > 30


def products(jaxpr: Any) -> Iterator[Any]:
    """Matrix products in a jaxpr and all that it calls."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_product_is_in_full_precision(name: str) -> None:
    found = {}
    for what, function, arguments in programs_of(CONFIGS[name]):
        dots = list(products(jax.jit(function).trace(*arguments).jaxpr.jaxpr))
        found[what] = len(dots)
        for equation in dots:
            assert equation.params["precision"] in (HIGHEST, (HIGHEST, HIGHEST)), f"{what}: {equation}"
    assert found["embed"] > 1
    assert found["embed with vjp"] > found["embed"]
    decoding = [what for what in found if what.startswith("decode")]
    assert len(decoding) > 10
    assert all(found[what] > 0 for what in decoding)


def test_a_product_of_default_precision_would_be_seen() -> None:
    inner = jax.jit(lambda x: jax.lax.fori_loop(0, 3, lambda _, y: y @ x, x))
    (equation,) = products(jax.make_jaxpr(inner)(jnp.eye(2)).jaxpr)
    assert equation.params["precision"] is None

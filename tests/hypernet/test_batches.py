import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from small_graphs import TINY, mixed_graph, random_graph

from ghn_jax.graphs.batching import GraphBatch, batch_graphs
from ghn_jax.hypernet import GHN, compile_for, init_ghn, predict_params, predict_with_vjp, prepare
from ghn_jax.hypernet.encoders.gated_gnn import GatedGNN, GatedGNNConfig
from ghn_jax.hypernet.encoders.sweep import BLOCK, SweepWeights, sweep
from ghn_jax.hypernet.programs import embed_program

CONFIG = TINY.replace(hid=16)


def states(ghn: GHN, variables: object, graphs: list, nodes: int) -> list[np.ndarray]:
    batch = batch_graphs(graphs, (nodes,))
    return [np.asarray(part) for part in batch.unpad(embed_program(ghn)(variables, batch))]


def test_embeddings_are_the_same_alone_padded_and_beside_others() -> None:
    ghn = GHN(CONFIG)
    variables = init_ghn(ghn, jax.random.key(1))
    graphs = [random_graph(0, 20), mixed_graph(), random_graph(1, 33), random_graph(2, 1)]
    together = states(ghn, variables, graphs, 48)
    for graph, beside in zip(graphs, together, strict=True):
        (alone,) = states(ghn, variables, [graph], graph.num_nodes + 1)
        (padded,) = states(ghn, variables, [graph], 64)
        scale = np.abs(alone).max()
        np.testing.assert_allclose(padded, alone, atol=1e-6 * scale, rtol=0)
        np.testing.assert_allclose(beside, alone, atol=1e-6 * scale, rtol=0)


def test_parameters_are_the_same_alone_and_beside_others() -> None:
    ghn = GHN(CONFIG)
    variables = init_ghn(ghn, jax.random.key(1))
    graphs = [mixed_graph(), random_graph(1, 33), mixed_graph("wider", 9)]
    for graph, beside in zip(graphs, predict_params(ghn, variables, graphs), strict=True):
        (alone,) = predict_params(ghn, variables, [graph])
        assert alone.keys() == beside.keys()
        for path, value in alone.items():
            np.testing.assert_allclose(beside[path], value, atol=1e-6 * float(jnp.abs(value).max()) + 1e-9, rtol=0)


def test_threads_change_nothing_but_the_order_of_sums() -> None:
    ghn = GHN(CONFIG)
    variables = init_ghn(ghn, jax.random.key(1))
    graphs = [mixed_graph(), mixed_graph("wider", 9)]
    (alone, vjp_alone), (found, vjp) = (predict_with_vjp(ghn, variables, graphs, threads=n) for n in (1, 3))
    jax.tree.map(np.testing.assert_array_equal, found, alone)
    gradient, expected = vjp(found), vjp_alone(alone)
    again = predict_with_vjp(ghn, variables, graphs, threads=3)[1](found)
    jax.tree.map(np.testing.assert_array_equal, again, gradient)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6 * largest, rtol=1e-5), gradient, expected)


def test_gradients_between_graphs_are_exactly_zero() -> None:
    variables = init_ghn(GHN(CONFIG), jax.random.key(1))
    batch = batch_graphs([random_graph(0, 12), random_graph(1, 9)], (16,))
    gnn, weights = GatedGNN(GatedGNNConfig(), CONFIG.hid), {"params": variables["params"]["gnn"]}
    steps = jnp.asarray(batch.num_nodes).max()

    def first_graph(inputs: jax.Array) -> jax.Array:
        states = jnp.asarray(gnn.apply(weights, inputs, jnp.asarray(batch.distances), steps))
        return jnp.square(states[0, :12]).sum()

    inputs = jax.random.normal(jax.random.key(2), (2, 16, 16))
    gradient = jax.grad(first_graph)(inputs)
    assert bool((gradient[1] == 0).all())
    assert bool((gradient[0, 12:] == 0).all())
    assert bool((gradient[0, :12] != 0).any(axis=-1).all())


def test_gradient_of_a_batch_is_the_sum_of_its_graphs() -> None:
    ghn = GHN(CONFIG)
    variables = init_ghn(ghn, jax.random.key(1))
    graphs = [mixed_graph(), random_graph(1, 33), mixed_graph("wider", 9)]
    params, vjp = predict_with_vjp(ghn, variables, graphs)
    whole = vjp(params)
    parts = [vjp_one(value) for graph in graphs for value, vjp_one in [predict_with_vjp(ghn, variables, [graph])]]
    total = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5 * float(jnp.abs(b).max())), whole, total)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("channels", [1, 2])
def test_sweep_gradients(reverse: bool, channels: int) -> None:
    keys = iter(jax.random.split(jax.random.key(0), 20))
    hidden, width = 6, 4
    messages = channels * width
    shapes = [(width, hidden), (hidden,), (hidden, messages), (messages,), (4, 12), (12,), (4, 12), (12,)]
    weights = SweepWeights(*(0.5 * jax.random.normal(next(keys), shape) for shape in shapes))
    nodes = 3 * BLOCK  # of which the last block has no real one, and the one before it some
    states = jax.random.normal(next(keys), (2, nodes, width))
    heard = np.tril(np.random.default_rng(0).integers(0, 4, (2, nodes, nodes)), -1).astype(np.uint8)
    heard_by = jnp.asarray(heard.swapaxes(1, 2) if reverse else heard)

    def run(weights: SweepWeights, states: jax.Array) -> jax.Array:
        return sweep(reverse, weights, states, heard_by, jnp.int32(2 * BLOCK - 3 if not reverse else nodes))

    with jax.enable_x64(True):
        weights, states = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (weights, states))
        check_grads(run, (weights, states), order=1, modes=["rev"], atol=1e-5, rtol=1e-5, eps=1e-6)


def test_forty_architectures_make_one_trace_per_bucket() -> None:
    traces = []

    class CountingGHN(GHN):
        def embed(self, variables: object, batch: GraphBatch) -> jax.Array:
            traces.append(batch)
            return super().embed(variables, batch)

    ghn = CountingGHN(TINY.replace(num_classes=6))
    variables = init_ghn(GHN(ghn.config), jax.random.key(0))
    buckets = (16, 32, 64)
    used = set()
    for seed in range(40):
        batch = batch_graphs([random_graph(seed, 5 + seed)], buckets)
        used.add(batch.width)
        embed_program(ghn)(variables, batch)
    assert used == {16, 32, 64}
    assert len(traces) == len(used)


def test_a_second_architecture_of_known_shapes_compiles_nothing() -> None:
    ghn = GHN(TINY)
    variables = init_ghn(ghn, jax.random.key(0))
    first = prepare(TINY, [mixed_graph("first")])
    compile_for(ghn, variables, first)
    assert prepare(TINY, [mixed_graph("second")]).programs() == first.programs()
    assert prepare(TINY, [mixed_graph("wider", 9)]).programs() != first.programs()
    with NoCompilation():
        params, vjp = predict_with_vjp(ghn, variables, [mixed_graph("second")])
        vjp(params)


class NoCompilation:
    """Fails on exit if anything was compiled inside."""

    def __enter__(self) -> None:
        self.compiled: list[str] = []
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event.endswith("backend_compile_duration"):
            self.compiled.append(event)

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._listen)
        assert not self.compiled

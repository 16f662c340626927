"""GHN-3 beyond `test_hypernet_parity`: full-size variants with weights by a formula, and batches."""

import functools
import gzip
import json
import zlib
from typing import Any

import fixture_graphs
import jax.numpy as jnp
import numpy as np
import pytest
from parity.test_hypernet_parity import TOLERANCE, check_tensors
from parity_data import PARITY, checkpoint, fixture_outputs, needs_parity

from ghn_jax.hypernet import GHN, PretrainedGHN, load_ghn, prepare
from ghn_jax.hypernet.checkpoints.release_names import config_from_release, params_from_release, release_entries
from ghn_jax.hypernet.prediction import decode_states
from ghn_jax.hypernet.programs import embed_program
from ghn_jax.training.reinitialise import correlation_std, orthonormal

pytestmark = needs_parity


@functools.cache
def fixture_config() -> dict[str, Any]:
    return json.loads((PARITY / "ghn3" / "configs.json").read_text())


def formula(salt: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """SplitMix64 of (name, index), from -1 to 1, scaled by what the tensor is."""
    start = np.uint64(zlib.crc32((salt + name).encode())) << np.uint64(32)
    z = (start + np.arange(np.prod(shape), dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    u = ((z ^ z >> np.uint64(31)) >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1
    if len(shape) == 1:
        of_norm = name.removesuffix(".weight").split(".")[-1] in ("ln", "ln1", "ln2")
        u = 1 + 0.2 * u if of_norm and name.endswith("weight") else 0.1 * u
    else:
        u = 0.5 * u if "embed" in name else u * np.sqrt(3 / shape[-1])
    return u.reshape(shape).astype(np.float32)


def by_formula(name: str) -> PretrainedGHN:
    release = {"hypernet": "gatedgnn", "decoder": "conv", **fixture_config()["configs"][name]}
    config = config_from_release(release, name)
    state = {e.name: formula(fixture_config()["salt"], e.name, e.shape) for e in release_entries(config)}
    return PretrainedGHN(GHN(config), params_from_release(config, state, name))


@pytest.mark.parametrize("ghn", ["ghn3_t", pytest.param("ghn3_s", marks=pytest.mark.slow)])
def test_full_size_variants(ghn: str) -> None:
    loaded = by_formula(ghn)
    names = fixture_graphs.cases(ghn)
    assert len(names) >= 2
    for name in names:
        graph = fixture_graphs.arch_graph(name)
        prepared = prepare(loaded.config, [graph])
        states = embed_program(loaded.ghn)(loaded.variables, prepared.batch)
        expected = fixture_outputs()[f"{name}/{ghn}/embeddings"]
        (rows,) = prepared.batch.unpad(np.asarray(states))
        assert np.linalg.norm(rows - expected) <= TOLERANCE * np.linalg.norm(expected), name
        (params,) = decode_states(loaded.ghn, loaded.variables, states, prepared)
        check_tensors(name, ghn, {spec.path: spec.axes for spec in graph.params}, params)


def test_graphs_of_a_batch_are_decoded_from_their_own_rows() -> None:
    """The release takes rows of other graphs where sizes differ; `right` is what it computes for each graph alone."""
    with gzip.open(PARITY / "ghn3" / "batch.json.gz") as file:
        recorded = json.load(file)
    loaded = load_ghn(checkpoint("ghn3_tiny"))
    for batch_name, by_ghn in recorded.items():
        batch = by_ghn["ghn3_tiny"]
        graphs = [fixture_graphs.arch_graph(name) for name in batch["graphs"]]
        prepared = prepare(loaded.config, graphs)
        states = embed_program(loaded.ghn)(loaded.variables, prepared.batch)
        expected = fixture_outputs()[f"{batch_name}/ghn3_tiny/embeddings"]
        for graph, rows, theirs in zip(graphs, prepared.batch.unpad(np.asarray(states)), expected, strict=True):
            theirs = theirs[: graph.num_nodes]  # noqa: PLW2901
            assert np.linalg.norm(rows - theirs) <= TOLERANCE * np.linalg.norm(theirs), graph.name
        networks = decode_states(loaded.ghn, loaded.variables, states, prepared)
        for name, graph, params, right in zip(batch["graphs"], graphs, networks, batch["right"], strict=True):
            check_tensors(name, "ghn3_tiny", {spec.path: spec.axes for spec in graph.params}, params, right)


def test_reinitialised_weights_are_those_of_the_release() -> None:
    cases = json.loads((PARITY / "ghn3" / "reinit.json").read_text())
    assert len(cases) == 7
    for case in cases:
        name, values = case["name"], case["orthogonal"]
        tensor = formula(fixture_config()["salt"], name, tuple(case["shape"]))
        matrix = jnp.asarray(tensor.reshape(len(tensor), -1))
        np.testing.assert_allclose(correlation_std(matrix), case["corr_std"], rtol=1e-5, err_msg=name)
        assert values["shape"] == case["shape"]
        whole = np.asarray(orthonormal(matrix), np.float64).ravel()
        np.testing.assert_allclose(np.linalg.norm(whole), values["norm"], rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(whole.sum(), values["sum"], rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(whole[values["idx"]], values["val"], atol=2e-5, err_msg=name)

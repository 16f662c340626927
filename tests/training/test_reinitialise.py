"""Noise and orthogonal re-initialisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_graphs import mixed_graph

from ghn_jax.graphs import ParamSpec, Role
from ghn_jax.training import reinitialise
from ghn_jax.training.reinitialise import as_matrix, correlation_std, from_matrix, orthonormal
from ghn_jax.training.starts import Given, start_params

GRAPH = mixed_graph()


def start() -> dict:
    return start_params("he", GRAPH, jax.random.key(0), Given())


def test_matrices_and_back() -> None:
    spec = ParamSpec(("a", "kernel"), (3, 5, 2, 4), "HWIO", Role.KERNEL, 1)
    tensor = jnp.arange(120.0).reshape(spec.shape)
    matrix = as_matrix(tensor, spec)
    assert matrix.shape == (4, 30)
    np.testing.assert_array_equal(matrix[1], tensor[..., 1].transpose(2, 0, 1).ravel())
    np.testing.assert_array_equal(from_matrix(matrix, spec), tensor)


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (7, 7)])
def test_orthonormal_rows_or_columns(shape: tuple[int, int]) -> None:
    matrix = jax.random.normal(jax.random.key(1), shape)
    found = orthonormal(matrix)
    product = found @ found.T if shape[0] < shape[1] else found.T @ found
    np.testing.assert_allclose(product, np.eye(min(shape)), atol=1e-5)
    again = orthonormal(found)
    np.testing.assert_allclose(again, found, atol=1e-5)  # the signs are those of the matrix


def test_correlations_are_numpys() -> None:
    matrix = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    np.testing.assert_allclose(correlation_std(jnp.asarray(matrix)), np.corrcoef(matrix).std(ddof=1), rtol=1e-5)
    np.testing.assert_allclose(correlation_std(jnp.asarray(matrix.T)), np.corrcoef(matrix).std(ddof=1), rtol=1e-5)
    constant = np.concatenate([matrix, np.ones((2, 8), np.float32)])
    np.testing.assert_allclose(correlation_std(jnp.asarray(constant)), np.corrcoef(matrix).std(ddof=1), rtol=1e-5)


@pytest.mark.parametrize("orthogonal", [False, True])
def test_norms_biases_and_the_classifier_stay(orthogonal: bool) -> None:
    before = start()
    after = reinitialise(GRAPH, before, jax.random.key(1), noise=0.1, orthogonal=orthogonal)
    stays = {path for path in before if path[-1] in ("scale", "bias")} | {("head", "kernel")}
    if not orthogonal:
        stays.add(("pos_enc", "table"))  # a single row: there is nothing to correlate
    for path, leaf in before.items():
        assert np.array_equal(after[path], leaf) == (path in stays), path
    assert after.keys() == before.keys()


def test_the_noise_has_its_deviation_and_begins_where_it_should() -> None:
    before = start()
    weights = [spec for spec in GRAPH.params if spec.role in (Role.KERNEL, Role.POSITION)]
    after = reinitialise(GRAPH, before, jax.random.key(1), noise=0.5, first=3)
    for number, spec in enumerate(weights, 1):
        change = np.asarray(after[spec.path] - before[spec.path])
        if number < 3:
            assert not change.any()
        else:
            expected = 0.5 * float(correlation_std(as_matrix(before[spec.path], spec)))
            assert change.std() == pytest.approx(expected, rel=0.25), spec.name


def test_copies_are_told_apart() -> None:
    """What it is for: equal filters get equal gradients and stay equal, those with noise part."""
    before = start()
    before["wide", "kernel"] = jnp.tile(before["wide", "kernel"][..., :4], (1, 1, 1, 5))
    after = reinitialise(GRAPH, before, jax.random.key(1))
    filters = [np.unique(np.asarray(params["wide", "kernel"]).reshape(-1, 20), axis=1) for params in (before, after)]
    assert [found.shape[1] for found in filters] == [4, 20]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="noise must not be negative"):
        reinitialise(GRAPH, start(), jax.random.key(0), noise=-1.0)
    with pytest.raises(ValueError, match="first at least 1"):
        reinitialise(GRAPH, start(), jax.random.key(0), first=0)

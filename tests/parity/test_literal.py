"""The literal float64 form equals the original release: what public tests compare with is what the release computes."""

import fixture_graphs
import numpy as np
import pytest
from literal.ghn import LiteralGHN
from literal.networks import LiteralNetwork
from parity_data import HAS_PARITY, PARITY, fixture_args, fixture_images, fixture_outputs, fixture_params, needs_parity

from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.hypernet.checkpoints.release_reader import read_torch_zip

pytestmark = needs_parity

GHNS = ("ghn1_tiny", "ghn2_tiny", "mlp_tiny", "ghn2_mlpdecoder_tiny", "ghn2_imagenet_tiny", "ghn2")
PER_GHN = 4
TENSORS = 1e-5  # both compute the same; the release in float32
LOGITS = 1e-3


def literal(ghn: str) -> LiteralGHN:
    checkpoint = read_torch_zip(PARITY / "checkpoints" / f"{ghn}.pt")
    return LiteralGHN(checkpoint["config"], checkpoint["state_dict"])


def smallest(ghn: str, count: int) -> list[str]:
    """The architectures with the fewest nodes among those of every kind that was recorded."""
    by_kind: dict[str, str] = {}
    for name in sorted(fixture_graphs.cases(ghn), key=lambda name: fixture_graphs.arch_graph(name).num_nodes):
        by_kind.setdefault(name.split("/")[0], name)
    return list(by_kind.values())[:count]


@pytest.mark.parametrize("ghn", GHNS)
def test_embeddings_and_tensors(ghn: str):
    form = literal(ghn)
    for name in smallest(ghn, PER_GHN):
        graph = fixture_graphs.arch_graph(name)
        states, expected = form.states(graph), fixture_outputs()[f"{name}/{ghn}/embeddings"]
        assert np.linalg.norm(states - expected) <= TENSORS * np.linalg.norm(expected), name
        params, names = form.predict(graph), fixture_graphs.release_names(name)
        assert params
        for spec in graph.params:
            values = fixture_params()[name][ghn][names[spec.path]]
            flat = params[spec.path].ravel()
            assert flat.size == np.prod(values["shape"])
            assert np.abs(flat[values["idx"]] - values["val"]).max() <= TENSORS * values["norm"], (name, spec.name)
            assert abs(np.linalg.norm(flat) - values["norm"]) <= TENSORS * values["norm"], (name, spec.name)


def networks() -> list[str]:
    if not HAS_PARITY:
        return []
    splits = ("val", "test", "bnfree", "predefined")
    found = []
    for split in splits:
        names = [
            name
            for name in fixture_graphs.cases("ghn2_tiny")
            if name.split("/")[0] == split and (name in fixture_args() or name == "predefined/ViT")
            and f"{name}/ghn2_tiny/logits" in fixture_outputs()
        ]  # fmt: skip
        found += sorted(names, key=lambda name: fixture_graphs.arch_graph(name).num_params)[:1]
    return found


@pytest.mark.parametrize("name", networks())
def test_logits(name: str):
    from ghn_jax.deepnets.predefined import VIT

    args = VIT if name == "predefined/ViT" else NetworkArgs.from_json(fixture_args()[name])
    params = literal("ghn2_tiny").predict(fixture_graphs.arch_graph(name))
    images = fixture_images()[0][:16].transpose(0, 3, 1, 2)
    expected = fixture_outputs()[f"{name}/ghn2_tiny/logits"]
    found = LiteralNetwork(args, params).logits(images)
    assert np.abs(found - expected).max() <= LOGITS * np.abs(expected).max()


def test_there_are_logits_of_four_kinds():
    assert len(networks()) == 4

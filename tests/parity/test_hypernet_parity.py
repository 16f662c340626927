"""Embeddings and predicted tensors of the original release, for every architecture and GHN of its recorded outputs."""

from typing import Any

import fixture_graphs
import numpy as np
import pytest
from parity_data import HAS_PARITY, checkpoint, fixture_args, fixture_outputs, fixture_params, needs_parity

from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.graph import network_graph
from ghn_jax.hypernet import load_ghn, predict_params, prepare
from ghn_jax.hypernet.prediction import decode_states
from ghn_jax.hypernet.programs import embed_program

pytestmark = needs_parity

FULL = ("ghn1", "ghn2", "mlp")
TINY = ("ghn1_tiny", "ghn2_tiny", "mlp_tiny", "ghn2_mlpdecoder_tiny", "ghn2_imagenet_tiny")
GHN3 = ("ghn3_tiny", "ghn3_plain_tiny", "ghn3_hub_tiny", pytest.param("ghn3_imagenet_tiny", marks=pytest.mark.slow))
LOGAH = (pytest.param("logah_tiny", marks=pytest.mark.slow), "logah_1d_tiny", "logah_gpt_tiny")
AT_ONCE = 6
TOLERANCE = 1e-4
OIHW = {
    "HWIO": (3, 2, 0, 1), "IO": (1, 0), "O": (0,), "OHWI": (0, 3, 1, 2), "OHI": (0, 1, 2), "OI": (0, 1)
}  # fmt: skip


def batches(ghn: str) -> list[list[str]]:
    """Architectures of similar size together."""
    if not HAS_PARITY:
        return []
    names = sorted(fixture_graphs.cases(ghn), key=lambda name: fixture_graphs.arch_graph(name).num_nodes)
    return [names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE)]


@pytest.mark.parametrize("ghn", [*FULL, *TINY, *GHN3, *LOGAH])
def test_embeddings_and_tensors(ghn: str) -> None:
    loaded = load_ghn(checkpoint(ghn))
    count = 0
    for names in batches(ghn):
        graphs = [fixture_graphs.arch_graph(name) for name in names]
        prepared = prepare(loaded.config, graphs)
        states = embed_program(loaded.ghn)(loaded.variables, prepared.batch)
        networks = decode_states(loaded.ghn, loaded.variables, states, prepared)
        for name, graph, rows, params in zip(
            names, graphs, prepared.batch.unpad(np.asarray(states)), networks, strict=True
        ):
            expected = fixture_outputs()[f"{name}/{ghn}/embeddings"]
            assert np.linalg.norm(rows - expected) <= TOLERANCE * np.linalg.norm(expected), name
            check_tensors(name, ghn, {spec.path: spec.axes for spec in graph.params}, params)
            count += 1
    assert count == len(fixture_graphs.cases(ghn)) > 0


def check_tensors(name: str, ghn: str, axes: dict, params: dict, recorded: Any = None) -> None:
    """Shape, norm, sum and sampled values of every predicted tensor; recorded for the network alone, unless given."""
    names = fixture_graphs.release_names(name)
    recorded = fixture_params()[name][ghn] if recorded is None else recorded
    expected = {tensor: values for tensor, values in recorded.items() if not tensor.endswith("layer_scale")}
    assert {names[path] for path in params} == set(expected)
    for path, array in params.items():
        values = expected[names[path]]
        flat = np.array(array, np.float64).transpose(OIHW[axes[path]])
        assert list(flat.shape) == values["shape"], (name, path)
        if "from_row" in values:
            flat[:, : values["from_row"]] = 0  # the first token of a position table is random
        flat = flat.ravel()
        scale = TOLERANCE * values["norm"]
        assert abs(np.linalg.norm(flat) - values["norm"]) <= scale, (name, path)
        assert abs(flat.sum() - values["sum"]) <= scale * np.sqrt(flat.size), (name, path)
        assert np.abs(flat[values["idx"]] - values["val"]).max() <= scale, (name, path)


@pytest.mark.parametrize("ghn", ["ghn1", "ghn2_imagenet_tiny"])
def test_graphs_made_from_arguments(ghn: str) -> None:
    """From the arguments alone, without the recorded graphs: parameters are equal, since node order does not matter."""
    classes = {"test_imagenet": 1000}
    loaded = load_ghn(checkpoint(ghn))
    names = [name for name in fixture_graphs.cases(ghn) if name.split("/")[0] in ("val", "bnfree", "test_imagenet")]
    assert names
    for name in names:
        split, index = name.split("/")
        args = fixture_args()[f"{split.removesuffix('_imagenet')}/{index}"]
        large = {"num_classes": classes[split], "image_size": 224} if split in classes else {}
        graph = network_graph(NetworkArgs.from_json(args, **large), name)
        prepared = prepare(loaded.config, [graph])
        (params,) = predict_params(loaded.ghn, loaded.variables, prepared)
        check_tensors(name, ghn, {spec.path: spec.axes for spec in graph.params}, params)

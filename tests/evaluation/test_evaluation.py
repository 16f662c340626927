"""Scores: against whole networks, both protocols of batch normalisation, tables and files."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util
from tiny_networks import images_and_labels, tiny_batch, tiny_ghn

from ghn_jax.deepnets.sources import ArchitectureConfig
from ghn_jax.evaluation.accuracy import Evaluator, Score, top_k
from ghn_jax.evaluation.bn_statistics import reestimate_statistics
from ghn_jax.evaluation.forward import network_of
from ghn_jax.evaluation.score_table import (
    claim_folder,
    read_scores,
    score_all,
    summary_table,
)
from ghn_jax.graphs import ArchGraph
from ghn_jax.graphs.tracing import trace
from ghn_jax.hypernet import predict_params
from ghn_jax.hypernet.json_fields import append_lines
from ghn_jax.networks import TargetNetwork
from ghn_jax.networks.random_init import torch_initialisation
from ghn_jax.networks.runner import Runner
from ghn_jax.networks.zoo.resnet import ResNet


def make_evaluator(**options) -> Evaluator:
    ghn, variables = tiny_ghn()
    return Evaluator(ghn, variables, [images_and_labels(16)], Runner(), **options)


def test_scores_are_those_of_whole_networks() -> None:
    ghn, variables = tiny_ghn()
    batch, (images, labels) = tiny_batch(), images_and_labels()
    items = [(i, args, graph) for i, (args, graph) in enumerate(zip(batch.args, batch.graphs, strict=True))]
    scores = list(make_evaluator().scores(items))
    assert [score.name for score in scores] == ["tiny/0", "tiny/1"]
    for args, graph, score in zip(batch.args, batch.graphs, scores, strict=True):
        (flat,) = predict_params(ghn, variables, [graph])
        logits: Any = TargetNetwork(args).apply({"params": traverse_util.unflatten_dict(flat)}, images)
        assert score.top1 == pytest.approx(float((logits.argmax(1) == labels).mean()))
        assert (score.nodes, score.params) == (graph.num_nodes, graph.num_params)
        assert score.random_top1 is not None
        assert score.seconds > 0


def test_random_initialisation_can_be_left_out() -> None:
    batch = tiny_batch()
    score = make_evaluator(seed=None).score(0, batch.args[0], batch.graphs[0])
    assert score.random_top1 is score.random_top5 is None


def test_no_images_are_no_evaluation() -> None:
    ghn, variables = tiny_ghn()
    with pytest.raises(ValueError, match="at least one batch"):
        Evaluator(ghn, variables, [], Runner())


def test_reestimated_scores_are_those_of_whole_networks_with_renewed_statistics() -> None:
    ghn, variables = tiny_ghn()
    batch, (images, labels) = tiny_batch(), images_and_labels()
    evaluator = make_evaluator(protocol="reestimated", training_images=(images + 0.1, 2 * images))
    for args, graph in zip(batch.args, batch.graphs, strict=True):
        (flat,) = predict_params(ghn, variables, [graph])
        network = TargetNetwork(args, momentum=0.9)
        renewed = reestimate_statistics(
            network, {"params": traverse_util.unflatten_dict(flat)}, [images + 0.1, 2 * images]
        )
        logits: Any = network.apply(renewed, images)
        assert evaluator.score(0, args, graph).top1 == pytest.approx(float((logits.argmax(1) == labels).mean()))


def test_top_k() -> None:
    logits = np.array([[3.0, 2, 1, 0, 0, 0], [0, 1, 2, 3, 4, 5], [1, 1, 1, 1, 1, 1]])
    assert top_k(logits[:1], np.array([0])) == (1, 1)
    assert top_k(logits[:1], np.array([1])) == (0, 1)
    assert top_k(logits[1:2], np.array([0])) == (0, 0)
    assert top_k(logits[2:], np.array([4])) == (pytest.approx(1 / 6), pytest.approx(5 / 6))  # constant: chance
    assert top_k(np.array([[np.nan, 0.0]]), np.array([1])) == (0, 0)
    assert top_k(np.array([[0.0, 1.0]]), np.array([0])) == (0, 1)


SCORES = [Score(f"test/{i}", 10, 1000, 0.5 + 0.1 * i, 0.9, 0.1, 0.5, 0.02) for i in range(3)]


def test_the_table_has_mean_error_and_maximum_of_both() -> None:
    lines = summary_table(SCORES, 0.1).splitlines()
    assert lines[1].split() == ["predicted", "60.0", "5.8", "70.0", "90.0"]
    assert lines[2].split() == ["He", "init", "10.0", "0.0", "10.0", "50.0"]
    assert lines[3] == (
        "3 architectures (10 to 10 nodes, 1,000 to 1,000 weights); chance 10.0; "
        "one prediction took 20 ms (median), 20 ms at most"
    )
    assert len(lines) == 4
    with pytest.raises(ValueError, match="at least one score"):
        summary_table([], 0.1)


@pytest.mark.parametrize(
    ("split", "kept"),
    [
        ("train", "networks of evaluation splits"),
        ("demo", "networks of the share (1 of 5, by the hash of their graphs) that the demo tests on"),
    ],
)
def test_the_table_says_which_rule_it_compares_with_and_what_training_left_out(split: str, kept: str) -> None:
    counts = {"passed_over": 12, "held_out": 3456}
    rule = ArchitectureConfig(split=split).held_out_rule
    lines = summary_table(SCORES[:1], 0.1, "torch", **counts, held_out_rule=rule).splitlines()
    assert lines[1].split() == ["predicted", "50.0", "-", "50.0", "90.0"]  # one value has no standard error
    assert lines[2].split()[:3] == ["PyTorch", "init", "10.0"]
    assert lines[4] == (
        f"training passed over 12 networks of meta-batches with too many nodes and left out 3,456 draws that are {kept}"
    )
    alone = [dataclasses.replace(score, random_top1=None, random_top5=None) for score in SCORES]
    assert len(summary_table(alone, 0.1).splitlines()) == 3


def test_scores_are_appended_and_a_line_cut_short_is_dropped(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "deep" / "scores.jsonl"
    assert read_scores(path) == []
    for score in SCORES[:2]:
        append_lines(path, [score])
    with path.open("a") as file:
        file.write('{"name": "te')
    assert read_scores(path) == SCORES[:2]
    append_lines(path, [SCORES[2]])
    assert read_scores(path) == SCORES
    whole = path.read_bytes()
    for damaged, words in (
        (b'{"other": 1}\n', "line 1, is no score: it lacks name"),
        (whole.replace(b'"top5": 0.9', b'"top5": "0.9"', 1), "line 1, is no score: it: top5 must be float"),
        (whole.replace(b'{"name": "test/1"', b'{"na\xffe": "test/1"'), "line 2, is no score"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=words):
            read_scores(path)


def test_scores_of_different_questions_are_not_mixed(tmp_path: pathlib.Path) -> None:
    claim_folder(tmp_path, {"images": 64, "weights": "a"}, answered=False)
    claim_folder(
        tmp_path, {"images": 48, "weights": "a"}, answered=False
    )  # a start that failed does not stand in the way
    claim_folder(tmp_path, {"images": 48, "weights": "a"}, answered=True)
    with pytest.raises(ValueError, match="images was 48, now 32"):
        claim_folder(tmp_path, {"images": 32, "weights": "a"}, answered=True)
    (tmp_path / "question.json").write_text('{"ima')
    with pytest.raises(ValueError, match=r"question\.json is damaged"):
        claim_folder(tmp_path, {"images": 48, "weights": "a"}, answered=True)


def test_a_model_without_cells_is_scored_by_both_protocols() -> None:
    ghn, weights = tiny_ghn()
    model = ResNet((1, 1), num_classes=10, small_images=True, bottleneck=False)
    images, labels = images_and_labels()
    graph = trace(model, images.shape[1:])
    (flat,) = predict_params(ghn, weights, [graph])
    variables: Any = {**model.init(jax.random.key(0), images), "params": traverse_util.unflatten_dict(flat)}
    by_batch: Any = model.apply(variables, images, True, mutable=["batch_stats"])[0]
    given: Any = model.apply(reestimate_statistics(model, variables, [images + 0.1, 2 * images]), images)
    network = network_of(model, flat, Runner())
    np.testing.assert_allclose(network.logits(images), by_batch, rtol=1e-4, atol=1e-5)
    statistics = network.statistics([images + 0.1, 2 * images])
    np.testing.assert_allclose(network.logits_given(images, statistics), given, rtol=1e-4, atol=1e-5)
    assert not np.allclose(by_batch, given, rtol=1e-2)
    for logits, options in (
        (by_batch, {}),
        (given, {"protocol": "reestimated", "training_images": (images + 0.1, 2 * images)}),
    ):
        found = make_evaluator(**options).score(0, model, graph)
        assert found.top1 == pytest.approx(float((logits.argmax(1) == labels).mean()))


def test_accuracy_counts_every_image_once() -> None:
    ghn, variables = tiny_ghn()
    batch, (images, labels) = tiny_batch(), images_and_labels()
    parts = [(images[:12], labels[:12]), (images[12:], labels[12:])]
    single = [Evaluator(ghn, variables, [part], Runner(), seed=None) for part in parts]
    found = [[getattr(one.score(0, batch.args[0], batch.graphs[0]), k) for k in ("top1", "top5")] for one in single]
    both = Evaluator(ghn, variables, parts, Runner(), seed=None).score(0, batch.args[0], batch.graphs[0])
    wanted = (12 * np.array(found[0]) + 4 * np.array(found[1])) / 16
    assert not np.allclose(wanted, np.mean(found, axis=0))
    np.testing.assert_allclose([both.top1, both.top5], wanted)


def test_the_rule_of_random_initialisation_is_the_one_asked_for() -> None:
    batch = tiny_batch()
    asked = []

    def rule(graph: ArchGraph, key: jax.Array) -> dict:
        asked.append(graph.name)
        return torch_initialisation(graph, key)

    score = make_evaluator(random_init=rule).score(0, batch.args[0], batch.graphs[0])
    assert asked == ["tiny/0"]
    assert score.random_top1 is not None


def test_an_evaluation_goes_on_where_it_stopped(tmp_path: pathlib.Path) -> None:
    batch = tiny_batch()
    items = [(i, args, graph) for i, (args, graph) in enumerate(zip(batch.args, batch.graphs, strict=True))]
    path = tmp_path / "scores.jsonl"
    there = Score("tiny/0", 1, 1, 0.123, 0.5, None, None, 1.0)
    append_lines(path, [there])
    scores = score_all(make_evaluator(seed=None), items, path)
    assert scores[0] == there
    assert [score.name for score in read_scores(path)] == ["tiny/0", "tiny/1"]
    np.testing.assert_equal(jax.device_get(scores[1].top1), read_scores(path)[1].top1)

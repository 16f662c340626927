"""Scores: against whole networks, both protocols of batch normalisation, tables and files."""

import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util
from tiny_networks import images_and_labels, tiny_batch, tiny_ghn

from ghn_jax.evaluation.accuracy import Evaluator, Score, top_k
from ghn_jax.evaluation.bn_statistics import estimate_statistics, forward_with_statistics
from ghn_jax.evaluation.score_table import append_score, claim_folder, read_scores, score_all, summary_table
from ghn_jax.evaluation.whole_models import model_logits
from ghn_jax.graphs.tracing import trace
from ghn_jax.hypernet import predict_params
from ghn_jax.networks import TargetNetwork, network_plan
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
        assert score.he_top1 is not None
        assert score.seconds > 0


def test_random_initialisation_can_be_left_out() -> None:
    batch = tiny_batch()
    score = make_evaluator(seed=None).score(0, batch.args[0], batch.graphs[0])
    assert score.he_top1 is score.he_top5 is None


def test_no_images_are_no_evaluation() -> None:
    ghn, variables = tiny_ghn()
    with pytest.raises(ValueError, match="at least one batch"):
        Evaluator(ghn, variables, [], Runner())


@pytest.mark.parametrize("number", [0, 1])
def test_statistics_of_one_batch_give_the_logits_of_that_batch(number: int) -> None:
    batch, (images, _) = tiny_batch(), images_and_labels()
    args, graph = batch.args[number], batch.graphs[number]
    (params,) = predict_params(*tiny_ghn(), [graph])
    stats = estimate_statistics(args, params, [images])
    variances = [path for path in stats if path[-1] == "var"]
    assert variances
    for path in variances:  # stored unbiased, used biased by the batch itself: undo that to compare
        count = images.shape[0] * images.shape[1] * images.shape[2]
        if path[0] in ("stem_1",):
            stats[path] = stats[path] * (count - 1) / count
    logits = forward_with_statistics(args, params, images, stats)
    expected = Runner().forward(network_plan(args), params, images)
    np.testing.assert_allclose(logits, expected, rtol=0.1, atol=0.05 * float(np.abs(expected).max()))


def test_with_fixed_statistics_images_do_not_depend_on_each_other() -> None:
    batch, (images, _) = tiny_batch(), images_and_labels()
    (params,) = predict_params(*tiny_ghn(), batch.graphs[:1])
    stats = estimate_statistics(batch.args[0], params, [images, images + 1])
    together = forward_with_statistics(batch.args[0], params, images, stats)
    alone = forward_with_statistics(batch.args[0], params, images[:4], stats)
    np.testing.assert_allclose(together[:4], alone, rtol=1e-4, atol=1e-5)


def test_statistics_are_means_over_batches_and_need_one() -> None:
    batch, (images, _) = tiny_batch(), images_and_labels()
    (params,) = predict_params(*tiny_ghn(), batch.graphs[:1])
    one, other, both = (
        estimate_statistics(batch.args[0], params, batches)
        for batches in ([images], [2 * images], [images, 2 * images])
    )
    for path, leaf in both.items():
        np.testing.assert_allclose(leaf, (one[path] + other[path]) / 2, rtol=1e-5)
    with pytest.raises(ValueError, match="at least one batch of training images"):
        estimate_statistics(batch.args[0], params, [])


def test_reestimated_scores() -> None:
    batch, (images, _) = tiny_batch(), images_and_labels()
    score = make_evaluator(protocol="reestimated", training_images=(images,)).score(0, batch.args[0], batch.graphs[0])
    assert 0 <= score.top1 <= score.top5 <= 1


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
    assert "3 architectures" in lines[3]
    assert "20 ms" in lines[3]
    with pytest.raises(ValueError, match="at least one score"):
        summary_table([], 0.1)


def test_scores_are_appended_and_a_line_cut_short_is_dropped(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "deep" / "scores.jsonl"
    assert read_scores(path) == []
    for score in SCORES[:2]:
        append_score(path, score)
    with path.open("a") as file:
        file.write('{"name": "te')
    assert read_scores(path) == SCORES[:2]
    append_score(path, SCORES[2])
    assert read_scores(path) == SCORES
    path.write_text('{"other": 1}\n')
    with pytest.raises(ValueError, match="no file of scores"):
        read_scores(path)


def test_scores_of_different_questions_are_not_mixed(tmp_path: pathlib.Path) -> None:
    claim_folder(tmp_path, {"images": 64, "weights": "a"})
    claim_folder(tmp_path, {"images": 64, "weights": "a"})
    with pytest.raises(ValueError, match="images was 64, now 32"):
        claim_folder(tmp_path, {"images": 32, "weights": "a"})


def test_a_model_without_cells_is_scored_by_both_protocols() -> None:
    model = ResNet((1, 1), num_classes=10, small_images=True, bottleneck=False)
    images, labels = images_and_labels(16)
    graph = trace(model, images.shape[1:])
    variables: Any = model.init(jax.random.key(0), images)
    params: Any = traverse_util.flatten_dict(variables["params"])
    expected, _ = model.apply(variables, images, True, mutable=["batch_stats"])
    (logits,) = model_logits(model, params, [images], ())
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    (same,) = model_logits(model, params, [images], [images, images])
    np.testing.assert_allclose(same, expected, rtol=1e-3, atol=1e-4)
    for options in ({}, {"protocol": "reestimated", "training_images": (images,)}):
        assert 0 <= make_evaluator(**options).score(0, model, graph).top1 <= 1
    assert labels.shape == (16,)


def test_an_evaluation_goes_on_where_it_stopped(tmp_path: pathlib.Path) -> None:
    batch = tiny_batch()
    items = [(i, args, graph) for i, (args, graph) in enumerate(zip(batch.args, batch.graphs, strict=True))]
    path = tmp_path / "scores.jsonl"
    there = Score("tiny/0", 1, 1, 0.123, 0.5, None, None, 1.0)
    append_score(path, there)
    scores = score_all(make_evaluator(seed=None), items, path)
    assert scores[0] == there
    assert [score.name for score in read_scores(path)] == ["tiny/0", "tiny/1"]
    np.testing.assert_equal(jax.device_get(scores[1].top1), read_scores(path)[1].top1)

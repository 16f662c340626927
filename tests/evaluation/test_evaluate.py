"""`evaluate` as a call, and batches that are gone through again and again."""

import dataclasses
import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_networks import IMAGE_SIZE, tiny_batch, tiny_ghn

from ghn_jax.evaluation import EvaluationConfig, evaluate
from ghn_jax.evaluation.repeated import RepeatedBatches
from ghn_jax.evaluation.score_table import SCORES_FILE, read_scores
from ghn_jax.hypernet import PretrainedGHN
from ghn_jax.images import load_images

DIGITS = load_images("digits", IMAGE_SIZE)
GHN = PretrainedGHN(*tiny_ghn())
QUICK = EvaluationConfig(split="demo", architectures=2, demo_width=8, images=64, batch_size=32)
GIVEN = list(zip(tiny_batch().args, tiny_batch().graphs, strict=True))


def test_a_split_is_evaluated() -> None:
    found = evaluate(GHN, DIGITS, QUICK)
    assert len(found.scores) == 2
    assert all(score.name.startswith("demo-") and score.random_top1 is not None for score in found.scores)
    assert "He init" in found.table
    one = evaluate(GHN, DIGITS, dataclasses.replace(QUICK, architectures=1, random_init="none"))
    assert dataclasses.replace(one.scores[0], seconds=0) == dataclasses.replace(
        found.scores[0], random_top1=None, random_top5=None, seconds=0
    )
    assert "init" not in one.table


def test_the_packaged_hypernetwork_is_the_default() -> None:
    config = EvaluationConfig(split="demo", architectures=1, images=128, random_init="torch")
    found = evaluate(None, DIGITS, config)
    assert found.scores[0].top1 > 0.5
    assert "PyTorch init" in found.table


def test_given_architectures_are_evaluated_by_both_protocols() -> None:
    batch, reestimated = (
        evaluate(GHN, DIGITS, dataclasses.replace(QUICK, **bn, random_init="none"), architectures=GIVEN)
        for bn in ({}, {"bn": "reestimated", "bn_batches": 3})
    )
    assert [score.name for score in batch.scores] == ["tiny/0", "tiny/1"]
    assert [s.top5 for s in batch.scores] != [s.top5 for s in reestimated.scores]
    with pytest.raises(ValueError, match="'tiny/0' comes 2 times"):
        evaluate(GHN, DIGITS, QUICK, architectures=[GIVEN[0], *GIVEN])


def test_a_folder_keeps_scores_and_refuses_other_questions(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "scores"
    config = dataclasses.replace(QUICK, random_init="none")
    first = evaluate(GHN, DIGITS, dataclasses.replace(config, architectures=1), folder=folder)
    both = evaluate(GHN, DIGITS, config, folder=folder)
    assert both.scores[0] == first.scores[0]  # seconds and all: it was read
    assert read_scores(folder / SCORES_FILE) == list(both.scores)
    for changed, message in (
        ({"images": 32}, "images was 64, now 32"),
        ({"random_init": "torch"}, "random_init was 'none', now 'torch'"),
        ({"bn": "reestimated"}, "bn was 'batch', now 'reestimated'"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(GHN, DIGITS, dataclasses.replace(config, **changed), folder=folder)
    ghn, variables = tiny_ghn()
    other = PretrainedGHN(ghn, jax.tree.map(lambda leaf: leaf + 1, variables))
    with pytest.raises(ValueError, match="weights was"):
        evaluate(other, DIGITS, config, folder=folder)
    with pytest.raises(ValueError, match="split was 'demo', now 'given"):
        evaluate(GHN, DIGITS, config, architectures=GIVEN, folder=folder)
    given = tmp_path / "given"
    evaluate(GHN, DIGITS, config, architectures=GIVEN[:1], folder=given)
    with pytest.raises(ValueError, match="split was 'given"):
        evaluate(GHN, DIGITS, config, architectures=[(GIVEN[1][0], GIVEN[0][1]), *GIVEN[1:]], folder=given)


class Source:
    """Counts how often it begins, and how many batches are alive on the device at a time."""

    def __init__(self, count: int) -> None:
        self.count, self.begun = count, 0

    def __call__(self) -> Iterator[tuple[jax.Array, jax.Array]]:
        self.begun += 1
        for i in range(self.count):
            yield jnp.full((8, 4), float(i)), jnp.full(8, i)


@pytest.mark.parametrize(("most_bytes", "begun"), [(10_000, 1), (300, 3), (0, 3)])
def test_batches_are_kept_while_they_fit_and_else_made_again(most_bytes: int, begun: int) -> None:
    source = Source(3)  # of 3 x 160 bytes
    batches = RepeatedBatches(source, most_bytes)
    for _ in range(3):
        found = list(batches)
        assert [float(images.mean()) for images, _ in found] == [0, 1, 2]
        assert [labels.tolist() for _, labels in found] == [[i] * 8 for i in range(3)]
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found))
    assert source.begun == begun


def test_a_look_at_the_first_batch_is_no_whole_pass() -> None:
    source = Source(3)
    batches = RepeatedBatches(source)
    assert next(iter(batches))[1][0] == 0
    assert len(list(batches)) == len(list(batches)) == 3
    assert source.begun == 2


def test_what_is_kept_lies_on_the_host() -> None:
    batches = RepeatedBatches(Source(4))
    list(batches)
    before = {id(leaf) for leaf in jax.live_arrays()}
    iterator = iter(batches)
    next(iterator)
    new = [leaf for leaf in jax.live_arrays() if id(leaf) not in before]
    assert sum(np.prod(leaf.shape) for leaf in new) <= 8 * 4 + 8  # one batch, not four

"""Drawing architectures."""

import collections

import pytest
from network_args import small_args

from ghn_jax.deepnets import REJECTIONS, SPLITS, VIT, NetworkArgs, parameter_count, sample_architecture
from ghn_jax.deepnets.operations import UNTRAINABLE_OPS
from ghn_jax.deepnets.sampler import rejection, sample_args
from ghn_jax.graphs import Primitive

DRAWN = [split for split in SPLITS if split != "predefined"]
COUNT = 150


def drawn(split: str, count: int = COUNT, seed: int = 0) -> list[NetworkArgs]:
    return [sample_args(split, index, seed)[0] for index in range(count)]


@pytest.mark.parametrize("split", DRAWN)
def test_architectures_stay_in_their_ranges(split: str):
    rules = SPLITS[split]
    for index in range(COUNT):
        architecture = sample_architecture(split, index)
        args = architecture.args
        assert args is not None
        assert rules.cells[0] <= args.n_cells <= rules.cells[1]
        low, high = rules.steps if args.n_cells <= rules.threshold[1] else rules.steps_long
        assert low <= args.genotype.steps <= max(high, rules.steps_long[1])
        assert rejection(args.replace(C=32, fc_dim=256), rules.max_params) is None
        assert set(architecture.rejections) <= set(REJECTIONS)
        if args.genotype.steps == 1:
            assert not args.genotype.has_op("none")
        else:
            assert args.preproc
        assert args.genotype.normal_concat == args.genotype.reduce_concat
        assert args.genotype.normal_concat[-1] == 1 + args.genotype.steps


@pytest.mark.parametrize("split", DRAWN)
def test_every_architecture_has_a_graph(split: str):
    for index in range(40):
        architecture = sample_architecture(split, index, seed=2)
        assert architecture.graph().name == architecture.name == f"{split}/{index}"


def test_an_architecture_depends_on_its_number_alone():
    forwards = drawn("train", 20)
    assert [sample_args("train", index)[0] for index in reversed(range(20))] == forwards[::-1]


def test_splits_and_seeds_differ():
    assert len({args for split in ("train", "val", "test") for args in drawn(split, 20)}) == 60
    assert drawn("train", 20, seed=1) != drawn("train", 20, seed=2)


def test_what_is_particular_to_splits():
    assert all(args.norm is None for args in drawn("bnfree"))
    assert all(args.norm == "bnorm" for args in drawn("search"))
    for wide, test in zip(drawn("wide", 20), drawn("test", 20), strict=True):
        assert wide.replace(C=32, fc_dim=64) == test.replace(C=32, fc_dim=64)
        assert wide.C == 128
    assert sample_args("wide", 0, large_images=True)[0].C == 64
    assert {args.C for args in drawn("test")} == {32, 48, 64}
    assert {args.C for args in drawn("train")} == {32}


def test_shares_of_free_choices():
    """Each within five standard errors of what the paper draws."""
    nets = drawn("train", 600)
    flat = [args for args in nets if not args.glob_avg]
    assert all(not args.is_transformer and args.n_cells <= 10 for args in flat)
    bare = [args for args in nets if args.norm is None]
    assert all(args.n_cells <= 5 and args.genotype.steps <= 2 for args in bare)
    untrained = sum(all(op in UNTRAINABLE_OPS for op, _ in args.genotype.reduce) for args in nets)
    free = [args for args in nets if args.is_transformer and args.genotype.steps == 1 and args.C_mult == 1]
    assert 200 < untrained < 420
    assert 0.5 < sum(not args.preproc for args in free) / len(free) <= 1
    assert not any(args.stem_pool and args.stem_type == 1 for args in nets)


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ((("cse", 0), ("max_pool_3x3", 1)), "cse without a convolution"),
        ((("cse", 0), ("cse", 1), ("conv_1x1", 0), ("conv_1x1", 1)), "several cse in a cell"),
        ((("conv_5x5", 0), ("conv_7x7", 1)), "several 5x5 or 7x7 convolutions in a cell"),
        ((("max_pool_3x3", 0), ("skip_connect", 1)), "nothing to train"),
        ((("none", 0), ("none", 1), ("conv_1x1", 0), ("conv_1x1", 1)), "disconnected"),
        ((("conv_7x7", 0), ("conv_1x1", 1)), "too many parameters"),
        ((("sep_conv_5x5", 0), ("dil_conv_5x5", 1)), None),
    ],
)
def test_rejections(steps: tuple[tuple[str, int], ...], reason: str | None):
    args = small_args(steps, C=32, n_cells=18)
    assert rejection(args, 100_000_000 if reason != REJECTIONS[-1] else 1_000_000) == reason


def test_rejections_are_counted():
    counts = collections.Counter(
        reason for index in range(300) for reason in sample_architecture("dense", index).rejections
    )
    assert counts["several cse in a cell"] > 20
    assert counts["several 5x5 or 7x7 convolutions in a cell"] > 20


def test_predefined_architectures():
    resnet, vit = (sample_architecture("predefined", index) for index in (0, 1))
    assert resnet.args is None
    assert (resnet.graph().node_types == Primitive.CONV).sum() == 54
    assert vit.args == VIT
    assert vit.graph().num_params == parameter_count(VIT)


@pytest.mark.parametrize(
    ("split", "index", "seed", "message"),
    [
        ("trian", 0, 0, "unknown split 'trian'; known splits: train, val"),
        ("train", -1, 0, "must not be negative, got index -1"),
        ("train", 0, -1, "must not be negative, got index 0 and seed -1"),
        ("predefined", 2, 0, r"ResNet-50 \(0\) and ViT \(1\), asked for number 2"),
    ],
)
def test_what_cannot_be_drawn_is_refused(split: str, index: int, seed: int, message: str):
    with pytest.raises(ValueError, match=message):
        sample_architecture(split, index, seed)


def test_the_predefined_split_is_not_drawn():
    with pytest.raises(ValueError, match="not drawn; use sample_architecture"):
        sample_args("predefined", 0)

"""The stream of meta-batches, and widths drawn at every use."""

import itertools
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_args import small_args

from ghn_jax.deepnets import ArchitectureStream, MetaBatch, draw_width, in_background
from ghn_jax.deepnets.opening import layer_uses
from ghn_jax.deepnets.widths import TRAINING_FC_DIMS, TRAINING_WIDTHS, counted_params, counted_products
from ghn_jax.networks import network_plan
from ghn_jax.networks.schedule import schedule


def same(left: MetaBatch, right: MetaBatch) -> bool:
    names = [[graph.name for graph in batch.graphs] for batch in (left, right)]
    numbers = [(batch.start, batch.end, batch.args, batch.passed_over, batch.held_out) for batch in (left, right)]
    return numbers[0] == numbers[1] and names[0] == names[1]


def take(stream: Any, count: int) -> list[MetaBatch]:
    return list(itertools.islice(stream, count))


def test_a_stream_goes_on_from_its_position():
    whole = take(ArchitectureStream(seed=4), 6)
    first = ArchitectureStream(seed=4)
    take(first, 2)
    for resumed in (ArchitectureStream(seed=4, position=first.position), pickle.loads(pickle.dumps(first))):
        assert all(map(same, take(resumed, 4), whole[2:]))
    assert not same(take(ArchitectureStream(seed=5), 1)[0], whole[0])


def test_meta_batches_keep_to_the_limit():
    stream = ArchitectureStream(max_nodes=1_000)
    batches = take(stream, 5)
    assert all(sum(graph.num_nodes for graph in batch.graphs) <= 1_000 for batch in batches)
    assert stream.passed_over > 0
    assert stream.position == batches[-1].end == 8 * (5 + stream.passed_over)


def test_graphs_belong_to_their_arguments():
    batch = take(ArchitectureStream(num_classes=7, meta_batch=3), 1)[0]
    for args, graph in zip(batch.args, batch.graphs, strict=True):
        assert args.num_classes == graph.num_classes == 7
        stem = next(spec for spec in graph.params if spec.path[0].startswith("stem"))
        assert stem.canonical_shape[0] in (args.C, args.C // 2, 3 * args.C)


def test_a_small_set_comes_in_a_new_order_every_round():
    stream = ArchitectureStream(num_architectures=6, meta_batch=3)
    names = [[graph.name for batch in take(stream, 2) for graph in batch.graphs] for _ in range(3)]
    assert all(sorted(lap) == [f"train/{index}" for index in range(6)] for lap in names)
    assert len({tuple(lap) for lap in names}) > 1


def test_costly_networks_are_drawn_less_often_and_the_same_ones_every_round():
    limit = 40_000_000
    plain, cheap = (ArchitectureStream(meta_batch=1, costly_above=above) for above in (None, limit))
    drawn, kept = ([counted_products(batch.args[0]) for batch in take(stream, 400)] for stream in (plain, cheap))
    chance = np.minimum(1, limit / np.array(drawn))
    assert np.mean(kept) == pytest.approx(np.average(drawn, weights=chance), rel=0.05)
    assert np.mean(kept) < np.mean(drawn) / 2
    laps = ArchitectureStream(meta_batch=5, num_architectures=10, costly_above=limit)
    rounds = [
        {
            graph.name: args.genotype
            for batch in take(laps, 2)
            for args, graph in zip(batch.args, batch.graphs, strict=True)
        }
        for _ in range(3)
    ]
    assert rounds[0] == rounds[1] == rounds[2]


def test_evaluation_splits_keep_their_width():
    stream = ArchitectureStream("wide", meta_batch=2)
    assert all(args.C == 128 for batch in take(stream, 3) for args in batch.args)


def test_other_processes_make_the_same_meta_batches():
    alone, shared = (ArchitectureStream(seed=1, position=872, max_nodes=1_500) for _ in range(2))
    batches = in_background(shared, workers=2, ahead=3)
    for expected in take(alone, 6):
        assert same(next(batches), expected)
        assert shared.position == expected.end
    assert (shared.passed_over, shared.held_out) == (alone.passed_over, alone.held_out)
    assert alone.passed_over > 0
    assert alone.held_out == 1  # number 899 of seed 1 is one of `val`
    batches.close()


def test_an_opening_brings_first_what_needs_few_new_layers():
    kinds: dict[str, Any] = {"seed": 2, "meta_batch": 2, "max_nodes": 500}
    plain, ordered, shared = (ArchitectureStream(opening=opening, **kinds) for opening in (0, 12, 12))
    drawn, batches = take(plain, 12), take(ordered, 12)
    count = sum(batch.end <= 24 for batch in drawn)  # of the opening; the others of it are passed over
    assert 0 < count < 12
    assert [batch.start for batch in batches] == [batch.start for batch in drawn]
    assert all(map(same, batches[count:], drawn[count:]))
    assert sorted(str(batch.args) for batch in batches[:count]) == sorted(str(batch.args) for batch in drawn[:count])
    needs = [frozenset().union(*map(layer_uses, batch.args)) for batch in batches[:count]]
    for place in range(count):
        seen = frozenset().union(*needs[:place])
        new = [len(need - seen) for need in needs[place:]]
        assert new[0] == min(new)
    assert [batch.args for batch in batches[:count]] != [batch.args for batch in drawn[:count]]

    resumed = ArchitectureStream(opening=12, position=batches[3].end, **kinds)
    assert [batch.args for batch in take(resumed, 6)] == [batch.args for batch in batches[4:10]]
    made = in_background(shared, workers=2, ahead=3)
    assert all(map(same, take(made, 6), batches))
    made.close()


def test_layers_that_an_opening_counts_are_those_that_are_compiled():
    images = jax.ShapeDtypeStruct((8, 16, 16, 3), jnp.float32)
    layers, programs = set(), set()
    for batch in take(ArchitectureStream(meta_batch=4, image_size=16), 3):
        for args in batch.args:
            layers |= layer_uses(args)
            programs |= {step.key for step in schedule(network_plan(args), images, True, True, None)}
            assert len(layers) == len(programs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "predefined"}, "a list of two, not a stream"),
        ({"split": "none"}, "unknown split 'none'"),
        ({"position": -8}, "position and opening must not be negative"),
        ({"opening": -1}, "position and opening must not be negative"),
        ({"meta_batch": 0}, "must be at least 1"),
        ({"num_architectures": 7}, "num_architectures 7 must be at least meta_batch 8"),
    ],
)
def test_impossible_streams_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        ArchitectureStream(**changes)


def test_a_limit_that_lets_nothing_through_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ghn_jax.deepnets.stream._MOST_PASSED_OVER", 20)
    for batches in (ArchitectureStream(max_nodes=10, meta_batch=1), in_background(ArchitectureStream(max_nodes=10), 1)):
        with pytest.raises(ValueError, match=r"20 meta-batches of . in a row have more than 10 nodes; raise max_nodes"):
            next(batches)


@pytest.mark.parametrize(
    ("changes", "widths"),
    [
        ({}, 7),
        ({"n_cells": 9}, 3),
        ({"n_cells": 11}, 2),
        ({"n_cells": 13}, 1),
        ({"glob_avg": False}, 1),
    ],
)
def test_widths_follow_the_size_of_the_network(changes: dict[str, Any], widths: int):
    options: dict[str, Any] = {"n_cells": 4, "C_mult": 1, "preproc": True, **changes}
    args = small_args((("conv_1x1", 0), ("dil_conv_5x5", 1)), **options)
    assert counted_params(args) < 200_000
    found = _draws(args)
    assert {one.C for one in found} == set(TRAINING_WIDTHS[:widths])
    most = max(one.fc_dim for one in found if one.C <= 64)
    assert most == (TRAINING_FC_DIMS[-1] if widths == 7 else TRAINING_FC_DIMS[3])
    assert all(one.fc_dim <= 256 for one in found if one.C > 64)


def test_large_kernels_keep_a_network_narrow():
    assert {args.C for args in _draws(small_args((("conv_5x5", 0), ("conv_1x1", 1)), C_mult=1, n_cells=4))} == {32}


@pytest.mark.parametrize(
    ("second", "cells", "params", "widths"), [(1, 3, 247_530, 3), (1, 4, 436_970, 2), (3, 5, 824_554, 1)]
)
def test_heavy_networks_stay_narrow(second: int, cells: int, params: int, widths: int):
    args = small_args((("conv_3x3", 0), (f"conv_{second}x{second}", 1)), C_mult=2, n_cells=cells)
    assert counted_params(args) == params
    assert {one.C for one in _draws(args)} == set(TRAINING_WIDTHS[:widths])


def _draws(args: Any) -> list[Any]:
    rng = np.random.default_rng(0)
    return [draw_width(args, rng) for _ in range(200)]

"""The vocabulary's order is part of the checkpoint format."""

import pytest

from ghn_jax.graphs import Primitive
from ghn_jax.graphs.vocabulary import CONVOLUTIONS, NORMS, POOLS

# docs/method.md, section 2
ROWS = [
    *("max_pool", "avg_pool", "sep_conv", "dil_conv", "conv", "msa", "cse", "sum", "concat", "input"),
    *("bias", "bn", "ln", "pos_enc", "glob_avg"),
]


def test_rows_of_the_embedding_table():
    assert [primitive.label for primitive in Primitive] == ROWS
    assert [int(primitive) for primitive in Primitive] == list(range(len(ROWS)))


@pytest.mark.parametrize("label", ROWS)
def test_labels(label):
    assert Primitive.from_label(label).label == label


def test_unknown_label():
    with pytest.raises(ValueError, match="unknown primitive 'lstm'; known primitives: max_pool, avg_pool, "):
        Primitive.from_label("lstm")


def test_groups():
    assert {p.label for p in CONVOLUTIONS} == {"conv", "sep_conv", "dil_conv"}
    assert {p.label for p in NORMS} == {"bn", "ln"}
    assert {p.label for p in POOLS} == {"max_pool", "avg_pool"}

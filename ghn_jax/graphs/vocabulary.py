"""Primitives of an architecture graph (paper, Table 1; DeepNets-1M).

The order is part of the checkpoint format: a primitive's value is its row in the embedding table.
"""

import enum


class Primitive(enum.IntEnum):
    """Type of a node; the value is the row of the GHN's embedding table."""

    MAX_POOL = 0
    AVG_POOL = 1
    SEP_CONV = 2
    DIL_CONV = 3
    CONV = 4
    MSA = 5
    CSE = 6
    SUM = 7
    CONCAT = 8
    INPUT = 9
    BIAS = 10
    BN = 11
    LN = 12
    POS_ENC = 13
    GLOB_AVG = 14

    @property
    def label(self) -> str:
        """Name in the field's (and the release's) spelling, such as ``sep_conv``."""
        return self.name.lower()

    @classmethod
    def from_label(cls, label: str) -> "Primitive":
        """Inverse of `label`; raises ValueError naming an unknown type."""
        try:
            return cls[label.upper()]
        except KeyError:
            known = ", ".join(p.label for p in cls)
            raise ValueError(f"unknown primitive {label!r}; known primitives: {known}") from None


CONVOLUTIONS = frozenset({Primitive.CONV, Primitive.SEP_CONV, Primitive.DIL_CONV})
NORMS = frozenset({Primitive.BN, Primitive.LN})
POOLS = frozenset({Primitive.MAX_POOL, Primitive.AVG_POOL})

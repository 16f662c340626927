"""Arguments that define a DeepNets-1M network (paper, A.1), to and from the release's JSON."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ghn_jax.deepnets.operations import OPERATIONS

Step = tuple[str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Genotype:
    """The two kinds of cells of a network.

    Attributes:
      normal, reduce: 2 * steps pairs (op, index of its input); step i adds the outputs of ops 2i and 2i + 1. Indices 0
        and 1 are the cell's inputs, 2.. its steps.
      normal_concat, reduce_concat: indices whose outputs are concatenated.
    """

    normal: tuple[Step, ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[Step, ...]
    reduce_concat: tuple[int, ...]

    def __post_init__(self) -> None:
        for kind, steps, concat in (
            ("normal", self.normal, self.normal_concat),
            ("reduce", self.reduce, self.reduce_concat),
        ):
            if not steps or len(steps) % 2:
                raise ValueError(f"genotype: {kind} needs two ops a step, got {len(steps)} ops")
            for place, (op, index) in enumerate(steps):
                if op not in OPERATIONS:
                    raise ValueError(f"genotype: unknown op {op!r} in {kind}; known ops: {', '.join(OPERATIONS)}")
                if not 0 <= index < 2 + place // 2:
                    raise ValueError(
                        f"genotype: op {place} ({op}) of {kind} takes input {index}, which is not computed before it"
                    )
            if not concat or not all(0 <= i < 2 + len(steps) // 2 for i in concat):
                raise ValueError(f"genotype: {kind}_concat {list(concat)} names no step of the cell")

    @property
    def steps(self) -> int:
        """Steps of the normal cell."""
        return len(self.normal) // 2

    def has_op(self, part: str) -> bool:
        """Whether the name of any op of either cell holds `part`."""
        return any(part in op for op, _ in (*self.normal, *self.reduce))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Genotype":
        """From the release's JSON; raises ValueError naming a missing key."""
        try:
            return cls(
                normal=tuple((str(op), int(i)) for op, i in data["normal"]),
                normal_concat=tuple(int(i) for i in data["normal_concat"]),
                reduce=tuple((str(op), int(i)) for op, i in data["reduce"]),
                reduce_concat=tuple(int(i) for i in data["reduce_concat"]),
            )
        except KeyError as error:
            raise ValueError(f"genotype: {error.args[0]!r} is missing") from None

    def to_json(self) -> dict[str, Any]:
        """The release's JSON."""
        return {
            "normal": [list(step) for step in self.normal],
            "normal_concat": list(self.normal_concat),
            "reduce": [list(step) for step in self.reduce],
            "reduce_concat": list(self.reduce_concat),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class NetworkArgs:
    """Everything that defines one DARTS-like network of DeepNets-1M.

    Attributes:
      genotype: its cells.
      n_cells: number of cells.
      C: initial width (channels).
      C_mult: factor of the width at each reduction cell.
      ks: kernel size of the stem's first convolution.
      stem_type: 0 one convolution, 1 two convolutions and a third of stride 2.
      stem_pool: max-pool after the stem of type 0.
      preproc: whether cells project their inputs.
      norm: "bnorm" or None.
      glob_avg: whether features are averaged over space before the classifier, else flattened.
      fc_layers: linear layers of the classifier.
      fc_dim: width of the inner linear layers of the classifier.
      num_classes: K.
      image_size: height and width of the images.
    """

    genotype: Genotype
    n_cells: int
    C: int = 32
    C_mult: int = 2
    ks: int = 3
    stem_type: int = 0
    stem_pool: bool = False
    preproc: bool = True
    norm: str | None = "bnorm"
    glob_avg: bool = True
    fc_layers: int = 1
    fc_dim: int = 64
    num_classes: int = 10
    image_size: int = 32

    def __post_init__(self) -> None:
        if self.norm not in ("bnorm", None):
            raise ValueError(f"network arguments: norm must be 'bnorm' or None, got {self.norm!r}")
        if self.stem_type not in (0, 1):
            raise ValueError(f"network arguments: stem_type must be 0 or 1, got {self.stem_type!r}")
        for field in ("n_cells", "C", "C_mult", "ks", "fc_layers", "fc_dim", "num_classes", "image_size"):
            value = getattr(self, field)
            if value < 1:
                raise ValueError(f"network arguments: {field} must be at least 1, got {value!r}")

    @property
    def is_transformer(self) -> bool:
        """Any op on tokens (msa) in the genotype: resolution never changes after the stem."""
        return any(OPERATIONS[op].on_tokens for op, _ in (*self.genotype.normal, *self.genotype.reduce))

    @property
    def is_large_image(self) -> bool:
        """Whether stems use their large-image (ImageNet) form."""
        return self.image_size > LARGE_IMAGE_ABOVE

    @property
    def reduction_cells(self) -> tuple[int, ...]:
        """Indices of the reduction cells: a third and two thirds of the way, never cell 0."""
        return tuple(sorted({self.n_cells // 3, 2 * self.n_cells // 3} - {0}))

    def replace(self, **changes: Any) -> "NetworkArgs":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_json(cls, data: Mapping[str, Any], **overrides: Any) -> "NetworkArgs":
        """From an entry of ``nets`` in the release's JSON; unknown statistics in it (``num_nodes``, ..) are ignored.

        Raises:
          ValueError: naming a missing key.
        """
        fields = {field.name for field in dataclasses.fields(cls)} - {"genotype"}
        known = {key: value for key, value in data.items() if key in fields}
        try:
            known = {"n_cells": data["n_cells"], **known, **overrides}
            return cls(genotype=Genotype.from_json(data["genotype"]), **known)
        except KeyError as error:
            raise ValueError(f"network arguments: {error.args[0]!r} is missing") from None

    def to_json(self) -> dict[str, Any]:
        """An entry of ``nets`` in the release's JSON (without its statistics)."""
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        data["genotype"] = self.genotype.to_json()
        del data["num_classes"], data["image_size"]
        return data


LARGE_IMAGE_ABOVE = 112
"""Images taller than this get the large-image stems."""

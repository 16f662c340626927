"""`GHNConfig`: everything that defines a graph hypernetwork, with the paper's presets and ablations."""

import dataclasses
from typing import Literal

Dataset = Literal["cifar10", "imagenet"]

_TASKS: dict[str, tuple[tuple[int, int, int, int], int]] = {
    "cifar10": ((64, 64, 11, 11), 10),
    "imagenet": ((64, 64, 16, 16), 1000),
}


@dataclasses.dataclass(frozen=True, slots=True)
class GHNConfig:
    """Static description of a hypernetwork (paper, section 3 and Table 4 for the ablations). Default: GHN-2, CIFAR-10.

    Attributes:
      max_shape: (O, I, S, S), the largest tensor decoded at once; larger ones are tiled.
      num_classes: K, classes of the task.
      hid: D, width of node states; a multiple of 4.
      hypernet: "gatedgnn", or "mlp" for the baseline without message passing.
      decoder: "conv" or "mlp".
      virtual_edges: whether nodes also hear those up to `s_max` edges away (Eq. 4).
      s_max: largest distance of a virtual edge.
      normalization: of predicted tensors: "fan_in" (section 3.3), "fan_out" (ablation) or "none" (GHN-1).
      layernorm: LayerNorm of the states before they are decoded.
      backward_sweep: False for the ablation with a forward sweep only.
      rounds: T, repetitions of the sweeps.
      shape_encoding: False for the ablation without shapes in the node features.
    """

    max_shape: tuple[int, int, int, int] = (64, 64, 11, 11)
    num_classes: int = 10
    hid: int = 32
    hypernet: Literal["gatedgnn", "mlp"] = "gatedgnn"
    decoder: Literal["conv", "mlp"] = "conv"
    virtual_edges: bool = True
    s_max: int = 50
    normalization: Literal["fan_in", "fan_out", "none"] = "fan_in"
    layernorm: bool = True
    backward_sweep: bool = True
    rounds: int = 1
    shape_encoding: bool = True

    def __post_init__(self) -> None:
        if len(self.max_shape) != 4 or any(size < 1 for size in self.max_shape):
            raise ValueError(f"GHN config: max_shape must be four positive sizes, got {self.max_shape}")
        if self.max_shape[2] != self.max_shape[3]:
            raise ValueError(f"GHN config: the last two sizes of max_shape must be equal, got {self.max_shape}")
        if self.hid < 4 or self.hid % 4:
            raise ValueError(f"GHN config: hid must be a positive multiple of 4, got {self.hid}")
        if self.num_classes < 1 or self.rounds < 1:
            raise ValueError(
                f"GHN config: num_classes and rounds must be positive, got {self.num_classes}, {self.rounds}"
            )
        if not 1 <= self.s_max <= 250:
            raise ValueError(f"GHN config: s_max must be between 1 and 250, got {self.s_max}")
        for field, value, known in (
            ("hypernet", self.hypernet, ("gatedgnn", "mlp")),
            ("decoder", self.decoder, ("conv", "mlp")),
            ("normalization", self.normalization, ("fan_in", "fan_out", "none")),
        ):
            if value not in known:
                raise ValueError(f"GHN config: {field} must be one of {', '.join(known)}, got {value!r}")

    @property
    def cutoff(self) -> int:
        """Largest distance that the sweeps use."""
        return self.s_max if self.virtual_edges else 1

    @property
    def vector_size(self) -> int:
        """Length of a decoded vector before fitting."""
        return max(self.max_shape[:2])

    def replace(self, **changes: object) -> "GHNConfig":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # pyright: ignore[reportArgumentType]

    @classmethod
    def preset(cls, name: Literal["ghn1", "ghn2", "mlp"], dataset: Dataset = "cifar10") -> "GHNConfig":
        """Configuration of a hypernetwork of the paper.

        Raises:
          ValueError: for another name or dataset.
        """
        if dataset not in _TASKS:
            raise ValueError(f"no preset for dataset {dataset!r}; known: {', '.join(_TASKS)}")
        max_shape, num_classes = _TASKS[dataset]
        ghn2 = cls(max_shape=max_shape, num_classes=num_classes)
        presets = {
            "ghn1": ghn2.replace(virtual_edges=False, normalization="none", layernorm=False),
            "ghn2": ghn2,
            "mlp": ghn2.replace(hypernet="mlp"),
        }
        if name not in presets:
            raise ValueError(f"no preset {name!r}; known: {', '.join(presets)}")
        return presets[name]

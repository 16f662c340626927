"""`GHNConfig`: everything that defines a graph hypernetwork, with the paper's presets."""

import dataclasses
import reprlib
from collections.abc import Mapping
from typing import Any, Final, Literal

from ghn_jax.hypernet.decoders.centred import CentredDecoderConfig
from ghn_jax.hypernet.decoders.conv import ConvDecoderConfig
from ghn_jax.hypernet.encoders.gated_gnn import GatedGNNConfig
from ghn_jax.hypernet.encoders.graphormer import GraphormerConfig
from ghn_jax.hypernet.encoders.mlp import MLPEncoderConfig
from ghn_jax.hypernet.json_fields import check_types, checked_fields
from ghn_jax.hypernet.protocols import DECODERS, ENCODERS, DecoderConfig, EncoderConfig

Dataset = Literal["cifar10", "imagenet"]

MAX_CHANNELS: Final = 4096
"""Largest O and I of `max_shape`."""
MAX_KERNEL: Final = 64
"""Largest S of `max_shape`."""
MAX_HID: Final = 2048
MAX_CLASSES: Final = 65_536
"""Largest K: the table of channel counts takes 400 numbers for each class."""

_TASKS: dict[str, tuple[tuple[int, int, int, int], int]] = {
    "cifar10": ((64, 64, 11, 11), 10),
    "imagenet": ((64, 64, 16, 16), 1000),
}

PresetName = Literal["ghn1", "ghn2", "mlp", "ghn3-t", "ghn3-s", "ghn3-l", "ghn3-xl"]

_GHN3_SIZES = {"ghn3-t": (64, 3, 8), "ghn3-s": (128, 5, 16), "ghn3-l": (256, 12, 16), "ghn3-xl": (384, 24, 16)}
"""D, which is O and I too, layers and heads of each published GHN-3."""


@dataclasses.dataclass(frozen=True)
class GHNConfig:
    """Static description of a hypernetwork (paper, section 3 and Table 4 for the ablations). Default: GHN-2, CIFAR-10.

    Attributes:
      max_shape: (O, I, S, S), the largest tensor decoded at once; larger ones are tiled.
      num_classes: K, classes of the task.
      hid: D, width of node states; a multiple of 4.
      normalization: of predicted tensors: "fan_in" (section 3.3), "fan_out" (ablation) or "none" (GHN-1).
      encoder: from graphs to node states; its kind and options.
      decoder: from node states to tensors; its kind and options.
    """

    max_shape: tuple[int, int, int, int] = (64, 64, 11, 11)
    num_classes: int = 10
    hid: int = 32
    normalization: Literal["fan_in", "fan_out", "none"] = "fan_in"
    encoder: EncoderConfig = dataclasses.field(default_factory=GatedGNNConfig)
    decoder: DecoderConfig = dataclasses.field(default_factory=ConvDecoderConfig)

    def __post_init__(self) -> None:
        check_types(self, "GHN config")
        for name, kind in (("encoder", EncoderConfig), ("decoder", DecoderConfig)):
            part = getattr(self, name)
            if not isinstance(part, kind):
                raise ValueError(f"GHN config: {name} must be a {kind.__name__}, got {reprlib.repr(part)}")
            check_types(part, f"GHN config: {name}")
        rows, columns, height, width = self.max_shape
        if height != width:
            raise ValueError(f"GHN config: the last two sizes of max_shape must be equal, got {self.max_shape}")
        if not (1 <= rows <= MAX_CHANNELS and 1 <= columns <= MAX_CHANNELS and 1 <= height <= MAX_KERNEL):
            raise ValueError(
                f"GHN config: max_shape must be two sizes up to {MAX_CHANNELS} and two up to {MAX_KERNEL}, "
                f"all at least 1, got {self.max_shape}"
            )
        if not 4 <= self.hid <= MAX_HID or self.hid % 4:
            raise ValueError(f"GHN config: hid must be a positive multiple of 4 up to {MAX_HID}, got {self.hid}")
        if not 1 <= self.num_classes <= MAX_CLASSES:
            raise ValueError(f"GHN config: num_classes must be between 1 and {MAX_CLASSES}, got {self.num_classes}")

    def replace(self, **changes: Any) -> "GHNConfig":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    @classmethod
    def preset(cls, name: PresetName, dataset: Dataset = "cifar10") -> "GHNConfig":
        """Configuration of a hypernetwork of the paper, or of a GHN-3 of published size (ImageNet: "ghn3tm8.pt", ..).

        Raises:
          ValueError: for another name or dataset.
        """
        if dataset not in _TASKS:
            raise ValueError(f"no preset for dataset {dataset!r}; known: {', '.join(_TASKS)}")
        max_shape, num_classes = _TASKS[dataset]
        ghn2 = cls(max_shape=max_shape, num_classes=num_classes)
        presets = {
            "ghn1": ghn2.replace(normalization="none", encoder=GatedGNNConfig(virtual_edges=False, layernorm=False)),
            "ghn2": ghn2,
            "mlp": ghn2.replace(encoder=MLPEncoderConfig()),
        }
        for ghn3, (hid, layers, heads) in _GHN3_SIZES.items():
            presets[ghn3] = ghn2.replace(
                max_shape=(hid, hid, *max_shape[2:]),
                hid=hid,
                encoder=GraphormerConfig(layers=layers, heads=heads),
                decoder=CentredDecoderConfig(),
            )
        if name not in presets:
            raise ValueError(f"no preset {name!r}; known: {', '.join(presets)}")
        return presets[name]

    def to_json(self) -> dict[str, Any]:
        """Nested JSON objects; those of encoder and decoder begin with their "kind"."""
        return {
            field.name: {"kind": value.kind, **dataclasses.asdict(value)}
            if isinstance(value := getattr(self, field.name), EncoderConfig | DecoderConfig)
            else value
            for field in dataclasses.fields(self)
        }

    @classmethod
    def from_json(cls, data: Any) -> "GHNConfig":
        """The configuration that `to_json` described, or one of the flat form of version 0.1.

        Raises:
          ValueError: for missing or unknown fields, values of another type or out of range; names the field.
        """
        data = _from_flat(data) if isinstance(data, Mapping) and "hypernet" in data else data
        parts = {"encoder": ENCODERS, "decoder": DECODERS}
        values = checked_fields(cls, data, "GHN config")
        return cls(**{**values, **{name: _part(values[name], name, kinds) for name, kinds in parts.items()}})


def _part(data: Any, name: str, kinds: Mapping[str, Any]) -> Any:
    """An encoder's or decoder's options from JSON."""
    where = f"GHN config: {name}"
    if not isinstance(data, Mapping) or type(data.get("kind")) is not str or data["kind"] not in kinds:
        raise ValueError(f"{where} must be an object whose kind is one of {', '.join(kinds)}, got {reprlib.repr(data)}")
    kind = kinds[data["kind"]]
    return kind(**checked_fields(kind, {key: value for key, value in data.items() if key != "kind"}, where))


def _from_flat(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested form of a configuration of version 0.1, which was one flat object."""
    data = dict(flat)
    kind = data.pop("hypernet")
    options = {field.name: data.pop(field.name) for field in dataclasses.fields(GatedGNNConfig) if field.name in data}
    # The baseline had the other encoder's options too, and did not use them.
    own = {field.name for field in dataclasses.fields(ENCODERS.get(kind if type(kind) is str else "", GatedGNNConfig))}
    of_encoder = {name: value for name, value in options.items() if name in own}
    return {**data, "encoder": {"kind": kind, **of_encoder}, "decoder": {"kind": data.get("decoder")}}

"""Names and layouts of the public release's checkpoints; which tensors there are is said by encoder and decoder."""

import dataclasses
import reprlib
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from ghn_jax.hypernet.checkpoints.release_layout import ReleaseTensor
from ghn_jax.hypernet.config import GHNConfig
from ghn_jax.hypernet.protocols import DECODERS, ENCODERS

_TYPES: dict[str, tuple[type, ...]] = {
    "max_shape": (tuple, list),
    "num_classes": (int,),
    "hypernet": (str,),
    "decoder": (str,),
    "weight_norm": (bool,),
    "ve": (bool,),
    "layernorm": (bool,),
    "hid": (int,),
}
"""Types of the entries of a checkpoint's configuration, exactly: True is no int, "no" no bool."""


def release_entries(config: GHNConfig) -> list[ReleaseTensor]:
    """Every tensor of a hypernetwork that the release knows, in the release's order.

    Raises:
      ValueError: for an encoder or decoder that the release does not have.
    """
    return [*config.encoder.release_tensors(config), *config.decoder.release_tensors(config)]


def config_from_release(config: Mapping[str, Any], source: str) -> GHNConfig:
    """Our configuration from the release's; keys it does not know are ignored, since weights are checked one by one.

    Raises:
      ValueError: naming a missing key or a bad value, and the source.
    """
    missing = [key for key in _TYPES if key not in config]
    if missing:
        raise ValueError(f"{source}: the checkpoint's config lacks {', '.join(missing)}")
    for key, types in _TYPES.items():
        if type(config[key]) not in types:
            raise ValueError(
                f"{source}: the checkpoint's config has {key}={reprlib.repr(config[key])}, expected {types[0].__name__}"
            )
    try:
        return GHNConfig(
            max_shape=cast("tuple[int, int, int, int]", tuple(config["max_shape"])),  # which checks what there is
            num_classes=config["num_classes"],
            hid=config["hid"],
            normalization="fan_in" if config["weight_norm"] else "none",
            encoder=_part(config, "hypernet", ENCODERS),
            decoder=_part(config, "decoder", DECODERS),
        )
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def _part(config: Mapping[str, Any], key: str, kinds: Mapping[str, Any]) -> Any:
    """Options of the kind that takes a configuration of the release for its own."""
    found = [part for kind in kinds.values() if (part := kind.from_release(config)) is not None]
    if not found:
        raise ValueError(f"no {key} is known for {reprlib.repr(config[key])}; known: {', '.join(kinds)}")
    return found[0]


def config_to_release(config: GHNConfig) -> dict[str, Any]:
    """The release's configuration from ours.

    Raises:
      ValueError: for an ablation that the release's format cannot say; names the field.
    """
    release = {
        "max_shape": config.max_shape,
        "num_classes": config.num_classes,
        "weight_norm": config.normalization != "none",
        "hid": config.hid,
        **config.encoder.to_release(),
        **config.decoder.to_release(),
    }
    readable = config_from_release(release, "export")
    for ours, again in ((config, readable), (config.encoder, readable.encoder), (config.decoder, readable.decoder)):
        if type(ours) is not type(again):
            kinds = f"{config.encoder.kind!r} with a {config.decoder.kind!r} decoder"
            raise ValueError(f"export: the release has no {kinds}")
        for field in dataclasses.fields(ours):
            value = getattr(ours, field.name)
            if not dataclasses.is_dataclass(value) and value != getattr(again, field.name):
                raise ValueError(f"export: the release's checkpoint format cannot say {field.name}={value!r}")
    return release


def params_from_release(
    config: GHNConfig, state: Mapping[str, Any], source: str, *, allow_nonfinite: bool = False
) -> dict[str, Any]:
    """Variables {"params": ...} from the release's tensors; NaN and infinity are refused unless allowed.

    Raises:
      ValueError: naming missing or extra tensors, or one of a wrong shape or type, and the source.
    """
    entries = release_entries(config)
    known = {entry.name for entry in entries}
    missing, extra = known - state.keys(), sorted(str(name) for name in state.keys() - known)
    if missing:
        raise ValueError(f"{source}: tensors are missing: {', '.join(sorted(missing))}")
    if extra:
        more = f" and {len(extra) - 10} more" if len(extra) > 10 else ""
        raise ValueError(f"{source}: tensors that its config does not ask for: {', '.join(extra[:10])}{more}")
    params: dict[str, Any] = {}
    for entry in entries:
        array = state[entry.name]
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{source}: {entry.name} is no tensor")
        if array.shape != entry.shape or array.dtype != np.float32:
            raise ValueError(
                f"{source}: tensor {entry.name} is {array.dtype} {array.shape}, "
                f"its config asks for float32 {entry.shape}"
            )
        if not allow_nonfinite:
            check_finite(array, f"{source}: tensor {entry.name}")
        *parents, leaf = entry.path
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = entry.to_ours(array)
    return {"params": params}


def check_finite(array: np.ndarray, what: str) -> None:
    """Raises ValueError for weights with which nothing can be predicted."""
    if not np.isfinite(array).all():
        raise ValueError(f"{what} holds NaN or infinity; load it with allow_nonfinite=True if that is wanted")


def params_to_release(config: GHNConfig, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The release's tensors, in its order, from variables {"params": ...}.

    Raises:
      ValueError: naming a weight that is missing.
    """
    state = {}
    for entry in release_entries(config):
        node: Any = variables["params"]
        for part in entry.path:
            if part not in node:
                raise ValueError(f"export: the variables lack {'/'.join(entry.path)}")
            node = node[part]
        state[entry.name] = entry.to_release(np.asarray(node, np.float32))
    return state

"""What our checkpoints say beside the weights: format, configuration, and a digest of each array and of the rest."""

import dataclasses
import hashlib
import json
import logging
import reprlib
from collections.abc import Mapping
from typing import Any, Final

import flax.traverse_util
import numpy as np

from ghn_jax.hypernet.config import GHNConfig

_LOG = logging.getLogger(__name__)

FORMAT: Final = "ghn_jax hypernetwork 3"
OLDER_FORMATS: Final = ("ghn_jax hypernetwork 2", "ghn_jax hypernetwork 1")
"""Without digests. The first, of version 0.1, had one flat configuration; the weights have the same names in all."""

MAX_BYTES: Final = 1 << 22
"""Of a whole description."""


@dataclasses.dataclass(frozen=True)
class Description:
    """A description that was read, and that agrees with itself.

    Attributes:
      config: of the hypernetwork.
      digests: of each array, by its path with slashes; None in older formats.
    """

    config: GHNConfig
    digests: Mapping[str, str] | None

    def check(self, arrays: Mapping[str, np.ndarray], source: str, *, allow_nonfinite: bool) -> None:
        """Checks weights, whose names and shapes are right already, against their digests.

        Raises:
          ValueError: naming the source and the first array that is not as it was written, or that is not finite.
        """
        if self.digests is None:
            _LOG.info("%s was written without digests: damage to its numbers would not be seen", source)
        for name, array in sorted(arrays.items()):
            if self.digests is not None and self.digests.get(name) != array_digest(array):
                raise ValueError(f"{source}: {name} is damaged: its digest is not the one that was written with it")
            if not allow_nonfinite and not np.isfinite(array).all():
                raise ValueError(
                    f"{source}: {name} holds NaN or infinity; load it with allow_nonfinite=True if that is wanted"
                )


def array_digest(array: np.ndarray) -> str:
    """SHA-256 of type, shape and numbers (little-endian, in C order), as hexadecimal digits."""
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{plain.dtype.name} {plain.shape}\n".encode())
    digest.update(plain.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def flat_arrays(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Weights as float32 NumPy arrays, by path with slashes."""
    flat: dict[str, Any] = flax.traverse_util.flatten_dict(dict(variables), sep="/")
    return {path: np.asarray(leaf, np.float32) for path, leaf in flat.items()}


def describe(config: GHNConfig, arrays: Mapping[str, np.ndarray]) -> str:
    """JSON text that describes weights."""
    data = config.to_json()
    digests = {name: array_digest(array) for name, array in sorted(arrays.items())}
    return json.dumps(
        {"format": FORMAT, "config": data, "config_digest": _json_digest(data), "digests": digests}, indent=1
    )


def read_description(text: str, source: str) -> Description:
    """What `describe`, or an older version, wrote.

    Raises:
      ValueError: for another text, a bad configuration, or one that is not as it was written; names the source.
    """
    what = f"{source}: no configuration of a hypernetwork"
    try:
        data = json.loads(text, object_pairs_hook=_object)
        form, config = data["format"], data.get("config")
        config_digest = _json_digest(config)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{what}: {error!r:.200}") from None
    if form not in (FORMAT, *OLDER_FORMATS):
        raise ValueError(f"{source}: written in the format {reprlib.repr(form)}, expected {FORMAT!r}")
    expected = {"format", "config", *(("config_digest", "digests") if form == FORMAT else ())}
    if data.keys() != expected:
        raise ValueError(f"{what}: its entries must be {', '.join(sorted(expected))}, got {reprlib.repr(list(data))}")
    digests = data.get("digests")
    if form == FORMAT and (not isinstance(digests, dict) or data["config_digest"] != config_digest):
        raise ValueError(f"{source}: the configuration is damaged: its digest is not the one that was written with it")
    try:
        return Description(GHNConfig.from_json(config), digests)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; one name twice is refused."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has one name twice")
    return found


def _json_digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

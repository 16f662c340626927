"""What a checkpoint of a run says about itself: its metric, the position of the batches and a digest of each array."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

RECORD = "record"
"""Item of a checkpoint that holds its record."""

UNMEASURED = -1.0
"""Metric of a checkpoint between two validations: below every accuracy."""

_JSON_ITEM = "metadata"
"""File that orbax puts the object of a JSON item in."""


class DamagedCheckpointError(ValueError):
    """A checkpoint that is not as it was written; the message names its folder or file."""


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """Of one checkpoint.

    Attributes:
      rest: a JSON object with what the run needs besides arrays.
      metric: that ranks checkpoints, higher is better.
      digests: type, shape and SHA-256 of every array, by its path; None in checkpoints of version 0.1, which have none.
    """

    rest: dict[str, Any]
    metric: float
    digests: dict[str, str] | None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object that tells whether it was changed."""
        content = dataclasses.asdict(self)
        return {"content": content, "sha256": _json_digest(content)}


def read_record(checkpoint: pathlib.Path) -> Record:
    """The record of a checkpoint's folder.

    Raises:
      DamagedCheckpointError: if it is missing or was changed; names the file.
    """
    path = checkpoint / RECORD / _JSON_ITEM
    if not path.parent.exists() and (checkpoint / "rest").exists():
        metric = _read_object(checkpoint / "metrics" / "metrics").get("metric", UNMEASURED)
        return Record(_read_object(checkpoint / "rest" / _JSON_ITEM), metric, None)
    data = _read_object(path)
    content = data.get("content")
    if not isinstance(content, dict) or data.get("sha256") != _json_digest(content):
        raise DamagedCheckpointError(f"{path} is not as it was written")
    return Record(**content)


def _read_object(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except PermissionError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedCheckpointError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise DamagedCheckpointError(f"{path} holds no JSON object")
    return found


def _json_digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def digests(tree: Any) -> dict[str, str]:
    """Type, shape and SHA-256 of every array of a pytree that this process holds whole, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): f"{_layout(leaf)} {_digest(leaf)}" for path, leaf in leaves}


def check_layout(where: pathlib.Path, there: Mapping[str, str], like: Any) -> None:
    """Raises ValueError if digests are of other arrays than those of `like`; names one."""
    leaves = jax.tree_util.tree_leaves_with_path(like)
    wanted = {jax.tree_util.keystr(path): _layout(leaf) for path, leaf in leaves}
    found = {path: text.rpartition(" ")[0] for path, text in there.items()}
    for path in sorted(wanted.keys() | found.keys()):
        if wanted.get(path) != found.get(path):
            raise ValueError(
                f"{where} is of another task: its state{path} is {found.get(path, 'missing')}, "
                f"expected is {wanted.get(path, 'none')}"
            )


def check_arrays(where: pathlib.Path, there: Mapping[str, str], tree: Any) -> None:
    """Raises DamagedCheckpointError if arrays are not those of the digests; names them."""
    wrong = [path for path, digest in digests(tree).items() if there.get(path) != digest]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise DamagedCheckpointError(f"{where} is not as it was written: state{wrong[0]}{more}")


def _layout(leaf: Any) -> str:
    return f"{leaf.dtype} {'x'.join(map(str, leaf.shape)) or 'scalar'}"


def _digest(leaf: Any) -> str:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return hashlib.sha256(np.ascontiguousarray(np.asarray(leaf)).reshape(-1).view(np.uint8)).hexdigest()

"""Checkpoints of a hypernetwork alone: our folder (orbax), our single file (for packaging), the release's file."""

import json
import os
import pathlib
import zipfile
from typing import Any

import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from ghn_jax.files import atomic_file, atomic_folder, whole_folder
from ghn_jax.hypernet.checkpoints.release_forms import configuration_and_tensors
from ghn_jax.hypernet.checkpoints.release_names import (
    config_from_release,
    config_to_release,
    params_from_release,
    params_to_release,
)
from ghn_jax.hypernet.checkpoints.release_reader import read_torch_zip
from ghn_jax.hypernet.checkpoints.release_writer import write_torch_zip
from ghn_jax.hypernet.config import GHNConfig
from ghn_jax.hypernet.ghn import GHN, Variables, init_ghn
from ghn_jax.hypernet.training_range import TrainingRange

FORMAT = "ghn_jax hypernetwork 2"
FLAT_FORMAT = "ghn_jax hypernetwork 1"
"""Written until version 0.1, with one flat configuration; the weights have the same names."""
_CONFIG_FILE = "config.json"
_WEIGHTS_FOLDER = "weights"


@flax.struct.dataclass
class PretrainedGHN:
    """A hypernetwork with its weights.

    Attributes:
      ghn: the module (static).
      variables: its weights, {"params": ...}.
      trained_on: what it was trained on, if that is known (static).
    """

    ghn: GHN = flax.struct.field(pytree_node=False)
    variables: Variables
    trained_on: TrainingRange | None = flax.struct.field(pytree_node=False, default=None)

    @property
    def config(self) -> GHNConfig:
        """Configuration of the hypernetwork."""
        return self.ghn.config


def save_checkpoint(path: str | os.PathLike[str], config: GHNConfig, variables: Variables) -> None:
    """Writes a folder with weights (orbax) and configuration; it appears whole, replacing what had its name."""
    import orbax.checkpoint as ocp  # slow to import, and prediction does not need it

    with atomic_folder(pathlib.Path(path).absolute()) as folder:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(folder / _WEIGHTS_FOLDER, jax.tree.map(jnp.asarray, variables))
        (folder / _CONFIG_FILE).write_text(_config_json(config))


def read_checkpoint(path: str | os.PathLike[str]) -> PretrainedGHN:
    """Reads what `save_checkpoint` wrote.

    Raises:
      ValueError: for a folder that is none, or whose weights do not match its configuration; names it.
    """
    import orbax.checkpoint as ocp  # slow to import, and prediction does not need it

    folder = whole_folder(pathlib.Path(path).absolute())
    config_file = folder / _CONFIG_FILE
    if not config_file.is_file():
        raise ValueError(f"{folder}: no checkpoint of a hypernetwork: {_CONFIG_FILE} is missing")
    ghn = GHN(_config_from_json(config_file.read_text(), str(config_file)))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    expected = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), _expected(ghn))
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            stored = checkpointer.metadata(folder / _WEIGHTS_FOLDER).item_metadata.tree
            _check_shapes(str(folder), expected, stored)
            variables = checkpointer.restore(folder / _WEIGHTS_FOLDER, expected)
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder}: the weights cannot be read: {error}") from None
    return PretrainedGHN(ghn, variables)


def save_file(path: str | os.PathLike[str], config: GHNConfig, variables: Variables) -> None:
    """Writes configuration and weights as one compressed .npz file, for packaging; replaced atomically."""
    flat = flax.traverse_util.flatten_dict(dict(variables), sep="/")
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        arrays = {str(name): np.asarray(array, np.float32) for name, array in flat.items()}
        np.savez_compressed(file, allow_pickle=False, **{_CONFIG_FILE: np.array(_config_json(config))}, **arrays)


def read_file(path: str | os.PathLike[str]) -> PretrainedGHN:
    """Reads what `save_file` wrote.

    Raises:
      ValueError: for another or a damaged file, or weights that do not match its configuration; names the file.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path}: not a hypernetwork in one file: {error}") from None
    if _CONFIG_FILE not in arrays:
        raise ValueError(f"{path}: not a hypernetwork in one file: {_CONFIG_FILE} is missing")
    ghn = GHN(_config_from_json(str(arrays.pop(_CONFIG_FILE)), str(path)))
    stored = flax.traverse_util.unflatten_dict(arrays, sep="/")
    _check_shapes(str(path), _expected(ghn), stored)
    return PretrainedGHN(ghn, jax.device_put(stored))


def read_release_checkpoint(path: str | os.PathLike[str]) -> PretrainedGHN:
    """Reads a ``.pt`` file of the public release, without PyTorch and without executing anything in it.

    Raises:
      ValueError: for a damaged or foreign file, missing or extra tensors, wrong shapes; names file and tensor.
    """
    source = str(path)
    release_config, tensors = configuration_and_tensors(read_torch_zip(path), source)
    config = config_from_release(release_config, source)
    return PretrainedGHN(GHN(config), jax.device_put(params_from_release(config, tensors, source)))


def export_release_checkpoint(
    path: str | os.PathLike[str], config: GHNConfig, variables: Variables, epoch: int = 0
) -> None:
    """Writes the release's ``.pt`` format, which its PyTorch code reads.

    Raises:
      ValueError: for an ablation that the format cannot say.
    """
    meta = {"epoch": epoch, "config": config_to_release(config)}
    write_torch_zip(path, params_to_release(config, variables), meta)


def _expected(ghn: GHN) -> Any:
    """Shapes of all weights."""
    return jax.eval_shape(lambda: init_ghn(ghn, jax.random.key(0)))


def _check_shapes(source: str, expected: Any, stored: Any) -> None:
    """Raises ValueError naming a weight that is missing, unknown or of another shape."""
    wanted, found = (_shapes(tree) for tree in (expected, stored))
    for path in sorted(wanted.keys() | found.keys()):
        if wanted.get(path) != found.get(path):
            raise ValueError(
                f"{source}: its configuration does not match its weights: {path} has shape {found.get(path)}, "
                f"expected {wanted.get(path)}"
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    flat: dict[str, Any] = flax.traverse_util.flatten_dict(tree, sep="/")
    return {path: tuple(leaf.shape) for path, leaf in flat.items()}


def _config_json(config: GHNConfig) -> str:
    return json.dumps({"format": FORMAT, "config": config.to_json()}, indent=1)


def _config_from_json(text: str, source: str) -> GHNConfig:
    try:
        data = json.loads(text)
        if data["format"] not in (FORMAT, FLAT_FORMAT):
            raise ValueError(f"{source}: written in the format {data['format']!r}, expected {FORMAT!r}")
        config = data["config"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{source}: no configuration of a hypernetwork: {error!r}") from None
    try:
        return GHNConfig.from_json(config)
    except ValueError as error:
        raise ValueError(f"{source}: no configuration of a hypernetwork: {error}") from None

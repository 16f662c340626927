"""Checkpoints of a hypernetwork alone: our folder (orbax), our single file (for packaging), the release's file."""

import io
import math
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from ghn_jax.files import atomic_file, atomic_folder, whole_folder
from ghn_jax.hypernet.checkpoints.bounded_files import Archive, open_archive
from ghn_jax.hypernet.checkpoints.description import MAX_BYTES, describe, flat_arrays, read_description
from ghn_jax.hypernet.checkpoints.joblib_reader import read_release_file
from ghn_jax.hypernet.checkpoints.release_forms import configuration_and_tensors
from ghn_jax.hypernet.checkpoints.release_names import (
    config_from_release,
    config_to_release,
    params_from_release,
    params_to_release,
)
from ghn_jax.hypernet.checkpoints.release_writer import write_torch_zip
from ghn_jax.hypernet.config import GHNConfig
from ghn_jax.hypernet.ghn import GHN, Variables, init_ghn
from ghn_jax.hypernet.training_range import TrainingRange

_CONFIG_FILE = "config.json"
_WEIGHTS_FOLDER = "weights"
_MAX_HEADER = 10_000
_MAX_FILES = 10_000


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
    """Writes a folder with weights (orbax, float32), configuration and digests; it appears whole or not at all."""
    import orbax.checkpoint as ocp  # slow to import, and prediction does not need it

    arrays = flat_arrays(variables)
    with atomic_folder(pathlib.Path(path).absolute()) as folder:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(folder / _WEIGHTS_FOLDER, jax.tree.map(jnp.asarray, nested(arrays)))
        (folder / _CONFIG_FILE).write_text(describe(config, arrays))


def read_checkpoint(path: str | os.PathLike[str], *, allow_nonfinite: bool = False) -> PretrainedGHN:
    """Reads what `save_checkpoint` wrote.

    Args:
      path: the folder.
      allow_nonfinite: whether weights may be NaN or infinite.

    Raises:
      ValueError: for a folder that is none, that is damaged, or whose weights do not match its configuration; names it.
    """
    folder = whole_folder(pathlib.Path(path).absolute())
    config_file = folder / _CONFIG_FILE
    if not config_file.is_file():
        raise ValueError(f"{folder}: no checkpoint of a hypernetwork: {_CONFIG_FILE} is missing")
    for number, place in enumerate((folder / _WEIGHTS_FOLDER).rglob("*")):
        if number == _MAX_FILES:
            raise ValueError(f"{folder}: {_WEIGHTS_FOLDER} holds more than {_MAX_FILES:,} files")
        if not place.is_file() and not place.is_dir():
            raise ValueError(f"{folder}: {place.relative_to(folder)} is neither a file nor a folder")
    try:
        with open(config_file, "rb") as file:
            text = file.read(MAX_BYTES)
    except OSError as error:
        raise ValueError(f"{folder}: {_CONFIG_FILE} cannot be read: {error}") from None
    description = read_description(text.decode(errors="replace"), str(config_file))
    ghn = GHN(description.config)
    variables = _restore(folder, _expected(ghn))
    description.check(flat_arrays(variables), str(folder), allow_nonfinite=allow_nonfinite)
    return PretrainedGHN(ghn, variables)


def _restore(folder: pathlib.Path, expected: Any) -> Variables:
    """Weights of the expected types and shapes; raises ValueError naming the folder for anything else."""
    import orbax.checkpoint as ocp  # slow to import, and prediction does not need it

    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), expected)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            stored = _flat(checkpointer.metadata(folder / _WEIGHTS_FOLDER).item_metadata.tree)
            mismatch = _mismatch(_kinds(_flat(expected)), _kinds(stored)) or _oversized(stored)
            if not mismatch:
                return checkpointer.restore(folder / _WEIGHTS_FOLDER, wanted)
    except Exception as error:  # what a damaged folder makes orbax and tensorstore raise is not documented
        first_line = str(error).partition("\n")[0]
        raise ValueError(f"{folder}: the weights cannot be read: {type(error).__name__}: {first_line:.500}") from None
    raise ValueError(f"{folder}: {mismatch}")


def save_file(path: str | os.PathLike[str], config: GHNConfig, variables: Variables) -> None:
    """Writes configuration, digests and weights (float32) as one compressed .npz file; replaced atomically."""
    arrays = flat_arrays(variables)
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        description = np.array(describe(config, arrays))
        np.savez_compressed(file, allow_pickle=False, **{_CONFIG_FILE: description}, **arrays)


def read_file(path: str | os.PathLike[str], *, allow_nonfinite: bool = False) -> PretrainedGHN:
    """Reads what `save_file` wrote.

    Args:
      path: the file.
      allow_nonfinite: whether weights may be NaN or infinite.

    Raises:
      ValueError: for another or a damaged file, or weights that do not match its configuration; names the file.
    """
    with open_archive(pathlib.Path(path), {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}) as archive:
        if f"{_CONFIG_FILE}.npy" not in archive.sizes:
            raise ValueError(f"{path}: not a hypernetwork in one file: {_CONFIG_FILE} is missing")
        description = read_description(str(_read_array(archive, _CONFIG_FILE, 4 * MAX_BYTES)), str(path))
        ghn = GHN(description.config)
        expected = expected_arrays(ghn)
        names = {name.removesuffix(".npy") for name in archive.sizes} - {_CONFIG_FILE}
        most = {name: leaf.size * leaf.dtype.itemsize for name, leaf in expected.items()}
        arrays = {name: _read_array(archive, name, most[name]) for name in sorted(names & most.keys())}
    found = dict.fromkeys(names, "there") | _kinds(arrays)
    check_kinds(expected, found, str(path))
    description.check(arrays, str(path), allow_nonfinite=allow_nonfinite)
    return PretrainedGHN(ghn, jax.device_put(nested(arrays)))


def read_release_checkpoint(
    path: str | os.PathLike[str], *, allow_nonfinite: bool = False, content: bytes | None = None
) -> PretrainedGHN:
    """Reads a ``.pt`` file of the public release, without PyTorch and without executing anything in it.

    Args:
      path: the file.
      allow_nonfinite: whether weights may be NaN or infinite.
      content: the file's bytes, if they are at hand: then `path` is only a name.

    Raises:
      ValueError: for a damaged or foreign file, missing or extra tensors, wrong shapes; names file and tensor.
    """
    source = str(path)
    release_config, tensors = configuration_and_tensors(read_release_file(path, content=content), source)
    config = config_from_release(release_config, source)
    params = params_from_release(config, tensors, source, allow_nonfinite=allow_nonfinite)
    return PretrainedGHN(GHN(config), jax.device_put(params))


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
    made = jax.eval_shape(lambda: init_ghn(ghn, jax.random.key(0)))
    # With jax_enable_x64 they would be made as float64.
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float32), made)


def expected_arrays(ghn: GHN) -> dict[str, Any]:
    """Shapes and types of all weights, by path with slashes."""
    return _flat(_expected(ghn))


def check_kinds(expected: Mapping[str, Any], found: Mapping[str, str], source: str) -> None:
    """Raises ValueError naming a weight that is missing, unknown or of another type or shape.

    Args:
      expected: what has types and shapes, by path.
      found: type and shape in words, such as "float32 (3, 8)".
      source: for the error.
    """
    if mismatch := _mismatch(_kinds(expected), found):
        raise ValueError(f"{source}: {mismatch}")


def _flat(tree: Any) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(tree, sep="/")


def nested(flat: dict[str, Any]) -> Any:
    """The tree of weights from arrays by path with slashes."""
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def _kinds(flat: Mapping[str, Any]) -> dict[str, str]:
    """Type and shape of each weight, in words."""
    return {path: f"{np.dtype(leaf.dtype).name} {tuple(leaf.shape)}" for path, leaf in flat.items()}


def _mismatch(wanted: Mapping[str, str], found: Mapping[str, str]) -> str | None:
    """Names a weight that is missing, unknown or of another type or shape; None if there is none."""
    for path in sorted(wanted.keys() | found.keys()):
        if wanted.get(path) != found.get(path):
            return (
                f"its configuration does not match its weights: {path} is {found.get(path, 'missing')}, "
                f"expected {wanted.get(path, 'nothing of this name')}"
            )
    return None


def _oversized(stored: Mapping[str, Any]) -> str | None:
    """Names a weight that is stored in pieces larger than itself, each of which would be reserved as a whole."""
    for path, leaf in stored.items():
        if math.prod(leaf.storage.chunk_shape) > max(1, math.prod(leaf.shape)):
            return f"{path} is stored in pieces of {leaf.storage.chunk_shape}, larger than itself"
    return None


def _read_array(archive: Archive, name: str, most: int) -> np.ndarray:
    """An array of a .npz: at most so many bytes of numbers, and a header.

    Raises:
      ValueError: for anything but the plain numbers or text that its header announces; names it.
    """
    data = archive.read(f"{name}.npy", most + _MAX_HEADER)
    file = io.BytesIO(data)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("its version is not 1.0")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # the header is an expression of Python, which can be wrong in every way
        raise ValueError(f"{name} is no array: {error!r:.200}") from None
    if dtype.kind not in "fiucbU" or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"{name} is not the {dtype.name} array of shape {shape} that its header says")
    numbers = np.frombuffer(data, dtype, offset=file.tell())
    return numbers.reshape(shape, order="F" if fortran_order else "C")

"""`load_ghn`: a hypernetwork from a path, a packaged name or the public release."""

import dataclasses
import hashlib
import importlib.resources
import io
import logging
import os
import pathlib
import reprlib
import zipfile

from ghn_jax.downloads import fetch
from ghn_jax.files import atomic_file, cache_folder, whole_folder
from ghn_jax.hypernet.checkpoints.bounded_files import open_archive
from ghn_jax.hypernet.checkpoints.hub import HUB_PREFIX, hub_path
from ghn_jax.hypernet.checkpoints.own import PretrainedGHN, read_checkpoint, read_file, read_release_checkpoint
from ghn_jax.hypernet.checkpoints.pretrained import WEIGHTS_FILE, read_pretrained
from ghn_jax.hypernet.training_range import read_training_range

_LOG = logging.getLogger(__name__)

RELEASE_URL = "https://raw.githubusercontent.com/facebookresearch/ppuda/main/checkpoints/"
RELEASE_PREFIX = "ppuda:"
RELEASE_FILES = {
    "ghn1_cifar10": "0c97a283aefc0445dd357c08f1b36698149b8013",
    "ghn1_imagenet": "985ebeb350c4ae79e0553d88c07d986fa69c227b",
    "ghn2_cifar10": "4f290e0fad1b73066eeabb50be52e0c377d0b15b",
    "ghn2_imagenet": "7b5d6733e9fdf0069bc6186cad3a0b1b54fda68d",
    "mlp_cifar10": "3a987c98b437fd2dfc603668a846f2b632ed28a3",
}
"""Public checkpoints and their git blob ids."""

MAX_RELEASE_BYTES = 1 << 26
"""Of a public checkpoint; the largest has about 10 MB."""

DEFAULT_GHN = "default"
"""Packaged hypernetwork that `predict` and `embed` use when none is given."""

_PACKAGED = "packaged"
_DOWNLOAD_SECONDS = 900.0


def packaged_names() -> tuple[str, ...]:
    """Names of the hypernetworks that come with the package."""
    folder = importlib.resources.files("ghn_jax.hypernet") / _PACKAGED
    if not folder.is_dir():
        return ()
    return tuple(sorted(entry.name.removesuffix(".npz") for entry in folder.iterdir() if entry.name.endswith(".npz")))


def load_ghn(source: str | os.PathLike[str], url: str | None = None, *, allow_nonfinite: bool = False) -> PretrainedGHN:
    """Loads a hypernetwork.

    Args:
      source: a folder that `save_checkpoint` or `save_pretrained` wrote, a ``.npz`` of `save_file`, a ``.pt`` of a
        release (GHN-2's, GHN-3's or LoGAH's), a packaged name, or one of two kinds of public names:
        ``ppuda:ghn2_cifar10`` and its sisters, downloaded once to the cache folder (`GHN_JAX_CACHE`, else ``ghn_jax``
        in the user's) and checked by git blob id; ``hf:OWNER/REPOSITORY/FILE``, such as
        ``hf:SamsungSAILMontreal/ghn3/ghn3tm8.pt``, or ``hf:OWNER/REPOSITORY`` for a folder, of the Hugging Face Hub.
      url: where public files lie; None for where their owners keep them.
      allow_nonfinite: whether weights may be NaN or infinite, as those of a training that went wrong are.

    Raises:
      ValueError: for an unknown name, a damaged or foreign file, a download that fails or brings wrong bytes.
    """
    name = os.fspath(source)
    if name.startswith(RELEASE_PREFIX):
        public, content = release_bytes(name.removeprefix(RELEASE_PREFIX), url or RELEASE_URL)
        return read_release_checkpoint(public, allow_nonfinite=allow_nonfinite, content=content)
    kept = hub_path(name, url) if name.startswith(HUB_PREFIX) else None
    try:
        path = whole_folder(name) if kept is None else kept
        is_pretrained, is_folder, is_file = (path / WEIGHTS_FILE).is_file(), path.is_dir(), path.is_file()
    except (OSError, ValueError) as error:  # no system can have such a name, or not let us look
        raise ValueError(f"no hypernetwork {reprlib.repr(name)}: {reprlib.repr(str(error))}") from None
    if is_pretrained:
        return read_pretrained(path, allow_nonfinite=allow_nonfinite)
    if is_folder:
        return read_checkpoint(path, allow_nonfinite=allow_nonfinite)
    if is_file:
        read = read_file if _is_npz(path) else read_release_checkpoint
        return read(path, allow_nonfinite=allow_nonfinite)
    if name in packaged_names():
        with importlib.resources.as_file(importlib.resources.files("ghn_jax.hypernet") / _PACKAGED) as folder:
            loaded = read_file(folder / f"{name}.npz")
            return dataclasses.replace(loaded, trained_on=read_training_range(folder / f"{name}.json"))
    packaged = ", ".join(packaged_names()) or "none"
    public = ", ".join(RELEASE_PREFIX + known for known in RELEASE_FILES)
    raise ValueError(f"no hypernetwork {name!r}: neither a file nor a folder; packaged: {packaged}; public: {public}")


def _is_npz(path: pathlib.Path) -> bool:
    try:
        with open_archive(path, {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}) as archive:
            return any(name.endswith(".npy") for name in archive.sizes)
    except ValueError:
        return path.suffix == ".npz"


def git_blob_id(data: bytes) -> str:
    """Id that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def release_bytes(name: str, url: str = RELEASE_URL) -> tuple[pathlib.Path, bytes]:
    """A public checkpoint, verified: where the cache folder keeps it, and its bytes, downloaded if it does not.

    A damaged one there is downloaded anew. Where nothing can be kept, a warning is logged.

    Raises:
      ValueError: for an unknown name, a download that fails, or bytes with another git blob id, which are not kept.
    """
    if name not in RELEASE_FILES:
        raise ValueError(f"the release has no checkpoint {name!r}; known: {', '.join(RELEASE_FILES)}")
    path = cache_folder() / f"{name}.pt"
    data = _kept(path, name)
    if data is None:
        data = _download(name, url, path)
        try:
            with atomic_file(path) as temporary:
                temporary.write_bytes(data)
        except (OSError, ValueError) as error:
            _LOG.warning("%s cannot be kept (%s): it will have to be downloaded again", path, error)
    return path, data


def _kept(path: pathlib.Path, name: str) -> bytes | None:
    """The file's bytes, if it is there, whole."""
    try:
        if not path.is_file():
            return None
        data = path.read_bytes() if path.stat().st_size <= MAX_RELEASE_BYTES else b""
        if git_blob_id(data) == RELEASE_FILES[name]:
            return data
        _LOG.warning("%s is damaged or not the public file: it is downloaded anew", path)
    except OSError as error:
        _LOG.warning("%s cannot be read (%s): it is downloaded anew", path, error)
    return None


def _download(name: str, url: str, path: pathlib.Path) -> bytes:
    """The public file's bytes; an error says that the file may be put to `path` by hand."""
    received = io.BytesIO()
    try:
        fetch(f"{url.rstrip('/')}/{name}.pt", received, MAX_RELEASE_BYTES, seconds=_DOWNLOAD_SECONDS)
    except ValueError as error:
        raise ValueError(f"{name}.pt cannot be downloaded ({error}); download it yourself to {path}") from None
    data = received.getvalue()
    actual = git_blob_id(data)
    if actual != RELEASE_FILES[name]:
        raise ValueError(
            f"{url}: {name}.pt has git blob id {actual} instead of {RELEASE_FILES[name]}: damaged on the way, or not "
            f"the public file; load it again, or put the right one to {path}"
        )
    return data

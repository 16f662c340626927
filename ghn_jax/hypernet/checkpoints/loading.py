"""`load_ghn`: a hypernetwork from a path, a packaged name or the public release."""

import hashlib
import importlib.resources
import os
import pathlib
import urllib.error
import urllib.request
import zipfile

from ghn_jax.files import replaced_atomically
from ghn_jax.hypernet.checkpoints.own import PretrainedGHN, read_checkpoint, read_file, read_release_checkpoint
from ghn_jax.hypernet.training_range import read_training_range

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

DEFAULT_GHN = "default"
"""Packaged hypernetwork that `predict` and `embed` use when none is given."""

_PACKAGED = "packaged"
_TIMEOUT_SECONDS = 60


def cache_folder() -> pathlib.Path:
    """Folder of downloaded checkpoints: GHN_JAX_CACHE, else ghn_jax in the user's cache folder."""
    if folder := os.environ.get("GHN_JAX_CACHE"):
        return pathlib.Path(folder)
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "ghn_jax"


def packaged_names() -> tuple[str, ...]:
    """Names of the hypernetworks that come with the package."""
    folder = importlib.resources.files("ghn_jax.hypernet") / _PACKAGED
    if not folder.is_dir():
        return ()
    return tuple(sorted(entry.name.removesuffix(".npz") for entry in folder.iterdir() if entry.name.endswith(".npz")))


def load_ghn(source: str | os.PathLike[str], url: str = RELEASE_URL) -> PretrainedGHN:
    """Loads a hypernetwork.

    Args:
      source: a folder that `save_checkpoint` wrote, a ``.npz`` of `save_file`, a ``.pt`` of the release, a packaged
        name, or ``ppuda:ghn2_cifar10`` and its sisters: downloaded once to `cache_folder`, checked by git blob id.
      url: where the public files lie.

    Raises:
      ValueError: for an unknown name, a damaged or foreign file, a download that fails or brings wrong bytes.
    """
    name = os.fspath(source)
    if name.startswith(RELEASE_PREFIX):
        return read_release_checkpoint(download_release(name.removeprefix(RELEASE_PREFIX), url))
    path = pathlib.Path(name)
    if path.is_dir():
        return read_checkpoint(path)
    if path.is_file():
        return read_file(path) if _is_npz(path) else read_release_checkpoint(path)
    if name in packaged_names():
        with importlib.resources.as_file(importlib.resources.files("ghn_jax.hypernet") / _PACKAGED) as folder:
            loaded = read_file(folder / f"{name}.npz")
            return loaded.replace(trained_on=read_training_range(folder / f"{name}.json"))
    packaged = ", ".join(packaged_names()) or "none"
    public = ", ".join(RELEASE_PREFIX + known for known in RELEASE_FILES)
    raise ValueError(f"no hypernetwork {name!r}: neither a file nor a folder; packaged: {packaged}; public: {public}")


def _is_npz(path: pathlib.Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(".npy") for name in archive.namelist())


def git_blob_id(data: bytes) -> str:
    """Id that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def download_release(name: str, url: str = RELEASE_URL) -> pathlib.Path:
    """Path of a public checkpoint in the cache folder, downloaded at first use; its bytes are verified every time.

    Raises:
      ValueError: for an unknown name, a download that fails, or bytes with another git blob id (they are removed).
    """
    if name not in RELEASE_FILES:
        raise ValueError(f"the release has no checkpoint {name!r}; known: {', '.join(RELEASE_FILES)}")
    path = cache_folder() / f"{name}.pt"
    if path.is_file():
        _verify(path, name)
        return path
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/{name}.pt", timeout=_TIMEOUT_SECONDS) as response:
            data = response.read()
    except (urllib.error.URLError, OSError) as error:
        raise ValueError(f"{url}: {name}.pt cannot be downloaded ({error}); download it yourself to {path}") from None
    with replaced_atomically(path) as temporary:
        temporary.write_bytes(data)
        _verify(temporary, name)
    return path


def _verify(path: pathlib.Path, name: str) -> None:
    """Removes the file and raises ValueError if it is not the public file of that name."""
    actual = git_blob_id(path.read_bytes())
    if actual != RELEASE_FILES[name]:
        path.unlink()
        raise ValueError(
            f"{name}.pt has git blob id {actual} instead of {RELEASE_FILES[name]}: damaged or not the public file; "
            f"it was removed, load it again to download it anew"
        )

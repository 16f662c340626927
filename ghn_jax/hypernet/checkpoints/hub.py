"""Hypernetworks on the Hugging Face Hub, by names such as ``hf:SamsungSAILMontreal/ghn3/ghn3tm8.pt``.

Downloads are the business of `huggingface_hub` (an extra), which keeps them in its own cache folder (`HF_HOME`).
"""

import hashlib
import importlib
import pathlib
from typing import Final, NamedTuple

from ghn_jax.hypernet.checkpoints.pretrained import PRETRAINED_FILES

HUB_PREFIX: Final = "hf:"
_BLOCK: Final = 1 << 20


class PublishedFile(NamedTuple):
    """What is known of a published file."""

    size: int
    sha256: str


PUBLISHED: Final = {
    "SamsungSAILMontreal/ghn3/ghn3sm8.pt": PublishedFile(
        143_269_744, "b6101fd4dbba98ee34a1abf70888e5f3866a0bd75b0acf4ef23e07cb4918fa6d"
    ),
    "SamsungSAILMontreal/ghn3/ghn3lm8.pt": PublishedFile(
        858_730_839, "e43b6903799a1d8f8b1a90274d729beb9052a1accdebb6d96b51c8d79337d7a5"
    ),
}
"""Files whose bytes are checked, by the part of their names after the prefix; T and XL have no known sum."""


def hub_path(name: str, url: str | None = None) -> pathlib.Path:
    """A hypernetwork of the Hub on disk: a file, or the folder of what `save_pretrained` wrote.

    Args:
      name: ``hf:OWNER/REPOSITORY/FILE``, or ``hf:OWNER/REPOSITORY`` for a folder.
      url: of the Hub; None for the public one, or that of the environment's `HF_ENDPOINT`.

    Raises:
      ValueError: for another name, without `huggingface_hub`, for a download that fails, or one of a file with a known
        sum that brings other bytes.
    """
    parts = name.removeprefix(HUB_PREFIX).split("/", 2)
    if len(parts) < 2 or not all(parts):
        raise ValueError(f"{name!r} names nothing on the Hub: expected {HUB_PREFIX}OWNER/REPOSITORY/FILE")
    repository = "/".join(parts[:2])
    paths = [_download(repository, file, name, url) for file in (parts[2:] or PRETRAINED_FILES)]
    known = PUBLISHED.get(name.removeprefix(HUB_PREFIX))
    if known is not None:
        _check(paths[0], known)
    return paths[0] if parts[2:] else paths[0].parent


def _download(repository: str, file: str, name: str, url: str | None) -> pathlib.Path:
    try:
        hub = importlib.import_module("huggingface_hub")
    except ModuleNotFoundError:
        raise ValueError(f"{name!r} needs the package huggingface_hub: pip install 'ghn_jax[hub]'") from None
    try:
        return pathlib.Path(hub.hf_hub_download(repository, file, endpoint=url))
    except Exception as error:  # of the package, of its HTTP client or of the file system
        first_line = str(error).strip().split("\n")[0]
        raise ValueError(f"{name!r}: {file} cannot be downloaded: {type(error).__name__}: {first_line:.300}") from None


def _check(path: pathlib.Path, known: PublishedFile) -> None:
    """Raises ValueError unless a file is the published one."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    size = path.stat().st_size
    if (size, digest.hexdigest()) != known:
        raise ValueError(
            f"{path}: {size} bytes with SHA-256 {digest.hexdigest()} instead of {known.size} with {known.sha256}: "
            "damaged or not the published file; delete it and load it again"
        )

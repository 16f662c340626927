"""Parameter names of the release and paths in a Flax parameter pytree."""

import functools
import re

_INDEX = re.compile(r"\.(\d+)(?=\.|$)")
_NUMBER = re.compile(r"_(\d+)$")
_NUMBERED_NAMES = frozenset({"conv_1", "conv_2"})  # the number belongs to the release's name itself


def flax_path(release_name: str, rank: int) -> tuple[str, ...]:
    """Path of a leaf from its PyTorch name.

    Numbers join the part before them, leading underscores go, and the last part follows Flax: ``kernel`` (rank 2 and
    up), ``scale`` (rank 1), ``bias``, ``table`` (position tables).
    ``cells.0._ops.1.op.2.weight`` (rank 1) is ``("cells_0", "ops_1", "op_2", "scale")``.
    """
    *parts, leaf = _INDEX.sub(r"_\1", release_name).split(".")
    parts = [part.lstrip("_") for part in parts]
    if leaf == "weight":
        leaf = "table" if parts[-1] == "pos_enc" else "kernel" if rank > 1 else "scale"
    return (*parts, leaf)


@functools.lru_cache(maxsize=4096)  # a million networks share a few hundred names
def release_name(path: tuple[str, ...]) -> str:
    """PyTorch name of a leaf of a DeepNets-1M network: the inverse of `flax_path`.

    ``("cells_0", "ops_1", "op_2", "scale")`` is ``cells.0._ops.1.op.2.weight``.
    """
    *parts, leaf = path
    names = [part if part in _NUMBERED_NAMES else _NUMBER.sub(r".\1", part) for part in parts]
    names = ["_" + name if name.startswith("ops.") else name for name in names]
    return ".".join([*names, leaf if leaf == "bias" else "weight"])

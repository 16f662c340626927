"""Hypernetworks as folders that can be shared: configuration, weights as safetensors, and a model card."""

import importlib
import os
import pathlib
from typing import Any, Final

import jax
import numpy as np

from ghn_jax.files import atomic_folder
from ghn_jax.hypernet.checkpoints.description import MAX_BYTES, describe, flat_arrays, read_description
from ghn_jax.hypernet.checkpoints.own import PretrainedGHN, check_kinds, expected_arrays, nested
from ghn_jax.hypernet.config import GHNConfig
from ghn_jax.hypernet.ghn import GHN, Variables

CONFIG_FILE: Final = "config.json"
WEIGHTS_FILE: Final = "model.safetensors"
CARD_FILE: Final = "README.md"
PRETRAINED_FILES: Final = (CONFIG_FILE, WEIGHTS_FILE)
"""What is needed to load one."""


def save_pretrained(
    path: str | os.PathLike[str], config: GHNConfig, variables: Variables, *, description: str = ""
) -> None:
    """Writes a folder with weights (float32), configuration with digests, and a model card; it appears whole.

    Args:
      path: folder, replaced if it is there.
      config: of the hypernetwork.
      variables: its weights.
      description: what it was trained on and how good it is, in Markdown, for the card.

    Raises:
      ValueError: without the package safetensors.
    """
    numpy_format = _safetensors("safetensors.numpy")
    arrays = flat_arrays(variables)
    with atomic_folder(pathlib.Path(path).absolute()) as folder:
        numpy_format.save_file(dict(sorted(arrays.items())), folder / WEIGHTS_FILE, {"format": "flax"})
        (folder / CONFIG_FILE).write_text(describe(config, arrays))
        (folder / CARD_FILE).write_text(model_card(config, sum(array.size for array in arrays.values()), description))


def read_pretrained(folder: pathlib.Path, *, allow_nonfinite: bool = False) -> PretrainedGHN:
    """Reads what `save_pretrained` wrote, without its card.

    Args:
      folder: its files.
      allow_nonfinite: whether weights may be NaN or infinite.

    Raises:
      ValueError: for another or a damaged folder, weights that do not match their configuration or their digests, or
        without the package safetensors; names the folder.
    """
    weights, config_file = folder / WEIGHTS_FILE, folder / CONFIG_FILE
    if not config_file.is_file():
        raise ValueError(f"{folder}: no hypernetwork: {CONFIG_FILE} is missing")
    if config_file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{config_file}: too large for the configuration of a hypernetwork")
    try:
        text = config_file.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{config_file}: no configuration of a hypernetwork: it is no text") from None
    description = read_description(text, str(config_file))
    ghn = GHN(description.config)
    expected = expected_arrays(ghn)
    library = _safetensors()
    try:
        with library.safe_open(weights, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {
                name: f"{_TYPES.get(s.get_dtype(), s.get_dtype())} {tuple(s.get_shape())}" for name, s in slices.items()
            }
            check_kinds(expected, found, str(folder))
            arrays: dict[str, np.ndarray] = {name: file.get_tensor(name) for name in sorted(found)}
    except (library.SafetensorError, OSError) as error:
        raise ValueError(f"{weights}: damaged or no file of safetensors: {error}") from None
    description.check(arrays, str(folder), allow_nonfinite=allow_nonfinite)
    return PretrainedGHN(ghn, jax.device_put(nested(arrays)))


_TYPES = {"F32": "float32"}


def model_card(config: GHNConfig, weights: int, description: str) -> str:
    """Markdown with the header that the Hugging Face Hub reads."""
    largest = " x ".join(map(str, config.max_shape))
    parts = "\n".join(
        f"| {name} | `{part}` |" for name, part in (("encoder", config.encoder), ("decoder", config.decoder))
    )
    return f"""---
library_name: ghn_jax
tags: [graph-hypernetwork, parameter-prediction]
---
# Graph hypernetwork of {weights:,} weights

Predicts the parameters of neural networks for {config.num_classes} classes from their architecture.

{description.strip() or "Nothing was said about its training."}

```python
import ghn_jax

ghn = ghn_jax.load_ghn("FOLDER")  # or "hf:OWNER/REPOSITORY"
variables = ghn_jax.predict(graph, ghn)
```

| | |
|---|---|
| node states | {config.hid} wide |
| largest tensor decoded at once | {largest} (out, in, height, width) |
{parts}
"""


def _safetensors(module: str = "safetensors") -> Any:
    """The package, or a module of it, which is an extra."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise ValueError(f"{WEIGHTS_FILE} needs the package safetensors: pip install 'ghn_jax[hub]'") from None

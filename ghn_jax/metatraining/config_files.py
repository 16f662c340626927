"""The configuration of a run beside its checkpoints: written, read, and compared with that of a run that goes on."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ghn_jax.files import atomic_file
from ghn_jax.hypernet import GHNConfig
from ghn_jax.hypernet.json_fields import checked_fields
from ghn_jax.metatraining.config import TrainConfig
from ghn_jax.runs.checkpoints import saved_steps

CONFIG_FILE = "config.json"


def to_json(config: Any) -> Any:
    """A configuration as JSON objects."""
    if isinstance(config, GHNConfig):
        return config.to_json()
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_json(getattr(config, field.name)) for field in dataclasses.fields(config)}
    return str(config) if isinstance(config, pathlib.Path) else config


def save_config(config: TrainConfig, folder: pathlib.Path) -> None:
    """Writes the resolved configuration beside the checkpoints."""
    with atomic_file(folder / CONFIG_FILE) as new:
        new.write_text(json.dumps(to_json(config), indent=1) + "\n")


def load_config(folder: pathlib.Path) -> TrainConfig:
    """The configuration that a run was started with.

    Raises:
      ValueError: if there is none, or its file is damaged or has an unknown field; names the file.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        raise ValueError(f"{path} does not exist: {folder} is no folder of a run")
    try:
        return _from_json(json.loads(path.read_text()))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is no configuration of a run: {error}. Without that file, the run can go on with the options that "
            "it was started with"
        ) from None


def _from_json(data: Any) -> TrainConfig:
    """What `to_json` was given; fields that are missing, as in files of earlier versions, get their defaults."""
    groups, default = checked_fields(TrainConfig, data, "it"), TrainConfig()
    for group in dataclasses.fields(TrainConfig):
        if group.name == "ghn":
            groups["ghn"] = GHNConfig.from_json(groups["ghn"])
        elif group.name != "preset":
            kind = type(getattr(default, group.name))
            there = groups[group.name]
            if isinstance(there, Mapping):
                there = {**to_json(kind()), **there}
            groups[group.name] = kind(**checked_fields(kind, there, group.name))
    return TrainConfig(**groups)


_MAY_CHANGE = ("images.data_dir", "images.image_workers", "architectures.sampler_workers", "optimiser.max_skipped")
_LENGTH = ("optimiser.epochs", "optimiser.steps")


def check_resumable(config: TrainConfig) -> None:
    """Raises ValueError if the run's folder holds a run that was configured differently; names the differences.

    How often it reports and what it runs on may change, and with the schedule "steps" also how long it runs: the rates
    of the updates made so far stay what they were, which those of a cosine do not, nor image sizes that grow. A folder
    without a checkpoint holds nothing to go on with: a start that failed does not stand in the way of the corrected
    command.
    """
    if not (config.run_dir / CONFIG_FILE).exists() or not saved_steps(config.run_dir):
        return
    there = load_config(config.run_dir)
    pairs = [
        (f"{part}.{f.name}", getattr(getattr(there, part), f.name), getattr(getattr(config, part), f.name))
        for part in ("images", "architectures", "ghn", "optimiser")
        for f in dataclasses.fields(getattr(config, part))
    ]
    pairs += [(f"run.{name}", getattr(there.run, name), getattr(config.run, name)) for name in ("seed", "dtype")]
    by_length = config.optimiser.schedule != "steps" or config.images.small_sizes
    free = _MAY_CHANGE if by_length else (*_MAY_CHANGE, *_LENGTH)
    changed = [
        f"{name} was {old!r}, now {new!r}"
        + (" (it would change rates or image sizes of the updates already made)" if name in _LENGTH else "")
        for name, old, new in pairs
        if old != new and name not in free
    ]
    if changed:
        raise ValueError(
            f"{config.run_dir} holds a run of another configuration ({'; '.join(changed)}): "
            "repeat its options to go on with it, or choose another --run-dir"
        )

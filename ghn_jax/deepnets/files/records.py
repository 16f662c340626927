"""One network's entry of the JSON file: its arguments within bounds, and checksums of them and of the stored graph."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ghn_jax.deepnets.files.tables import MOST_OPS
from ghn_jax.deepnets.genotype import NetworkArgs
from ghn_jax.deepnets.widths import TRAINING_FC_DIMS, TRAINING_WIDTHS, counted_params

MOST_NODES = 4096
"""Nodes of a network in a file; the largest published one has 1,017."""

CHECKSUM, GRAPH_CHECKSUM = "checksum", "graph_checksum"
"""Keys of the two checksums, which the release's files do not have and its reader passes over."""

_NUMBERS = {
    "n_cells": (1, 100),
    "C": (1, 4096),
    "C_mult": (1, 8),
    "ks": (1, 31),
    "stem_type": (0, 1),
    "fc_layers": (1, 10),
    "fc_dim": (1, 65_536),
    "num_nodes": (1, MOST_NODES),
}
_SWITCHES = ("stem_pool", "preproc", "glob_avg")
_IMAGE_SIZES = {"cifar10": 32, "imagenet": 224}
_CELLS = ("normal", "reduce")
_MOST_WEIGHTS = 10**12


def num_params(args: NetworkArgs) -> dict[str, int]:
    """Weights of a network as its record counts them, for both tasks."""
    return {task: counted_params(args.replace(image_size=size)) for task, size in _IMAGE_SIZES.items()}


def with_checksums(record: Mapping[str, Any], graph_checksum: str) -> dict[str, Any]:
    """A record with the checksum of the network's graph and its own."""
    summed = {**record, GRAPH_CHECKSUM: graph_checksum}
    return {**summed, CHECKSUM: _checksum(summed)}


def graph_checksum(labels: Iterable[tuple[str, int, str]], distances: np.ndarray) -> str:
    """Of labels, as names, and uint8 (N, N) distances: 16 hexadecimal digits."""
    text = "\n".join(f"{kind} {cell} {op}" for kind, cell, op in labels)
    return _digest(f"{distances.shape}\n{text}\n".encode() + distances.tobytes())


def parse_record(record: Mapping[str, Any], *, num_classes: int, image_size: int) -> NetworkArgs:
    """The arguments in a record.

    With a checksum they are as they were written. Without one, as in the release's files, C and fc_dim must be among
    those that the release draws from, and the weights must be counted right.

    Args:
      record: what stands in the JSON.
      num_classes: of the task.
      image_size: of the task.

    Raises:
      ValueError: naming what is missing, of a wrong type, out of bounds, or not as it was written.
    """
    _check_fields(record)
    if CHECKSUM in record and record[CHECKSUM] != _checksum(record):
        raise ValueError(f"{CHECKSUM!r} is not that of the entry: it is not as it was written")
    args = NetworkArgs.from_json(record, num_classes=num_classes, image_size=image_size)
    if CHECKSUM not in record:
        for field, choices in (("C", TRAINING_WIDTHS), ("fc_dim", TRAINING_FC_DIMS)):
            if record.get(field, choices[0]) not in choices:
                raise ValueError(f"{field!r} is {record[field]}; without a checksum it must be one of {choices}")
        if num_params(args) != record["num_params"]:
            raise ValueError(f"'num_params' is {record['num_params']}, but its network has {num_params(args)}")
    return args


def _check_fields(record: Mapping[str, Any]) -> None:
    for field, (least, most) in _NUMBERS.items():
        if field in record or field != "C":
            value = _required(record, field)
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{field!r} must be a whole number from {least} to {most}, got {_short(value)}")
    for field in _SWITCHES:
        if type(value := _required(record, field)) is not bool:
            raise ValueError(f"{field!r} must be true or false, got {_short(value)}")
    if (norm := _required(record, "norm")) not in ("bnorm", None):
        raise ValueError(f"'norm' must be 'bnorm' or null, got {_short(norm)}")
    weights = _required(record, "num_params")
    if not isinstance(weights, dict) or weights.keys() != _IMAGE_SIZES.keys():
        raise ValueError(f"'num_params' must have the keys {', '.join(_IMAGE_SIZES)}, got {_short(weights)}")
    if not all(type(number) is int and 0 <= number <= _MOST_WEIGHTS for number in weights.values()):
        raise ValueError(f"'num_params' must be whole numbers, got {_short(weights)}")
    _check_genotype(_required(record, "genotype"))


def _check_genotype(genotype: Any) -> None:
    """Types and lengths; what they mean is checked by `Genotype`."""
    if not isinstance(genotype, dict):
        raise ValueError(f"'genotype' must be an object, got {_short(genotype)}")
    for cell in _CELLS:
        steps, concat = _required(genotype, cell), _required(genotype, f"{cell}_concat")
        if not isinstance(steps, list) or len(steps) > MOST_OPS or not all(map(_is_step, steps)):
            raise ValueError(f"{cell!r} must be up to {MOST_OPS} pairs of an op and a number, got {_short(steps)}")
        if (
            not isinstance(concat, list)
            or len(concat) > MOST_OPS // 2 + 2
            or not all(type(index) is int for index in concat)
        ):
            raise ValueError(f"'{cell}_concat' must be up to {MOST_OPS // 2 + 2} numbers, got {_short(concat)}")


def _is_step(step: Any) -> bool:
    return isinstance(step, list) and len(step) == 2 and type(step[0]) is str and type(step[1]) is int


def _required(data: Mapping[str, Any], key: str) -> Any:
    if key not in data:
        raise ValueError(f"{key!r} is missing")
    return data[key]


def _short(value: Any) -> str:
    """A value for a message."""
    text = repr(value) if not isinstance(value, list | dict) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _checksum(record: Mapping[str, Any]) -> str:
    """Of all that is read of a record; other keys may be added by anyone."""
    keys = (*_NUMBERS, *_SWITCHES, "norm", "num_params", "genotype", GRAPH_CHECKSUM)
    return _digest(json.dumps({key: record.get(key) for key in keys}, sort_keys=True).encode())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()

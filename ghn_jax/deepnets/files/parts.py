"""One part of a data set that is being made: what is kept of some architectures if the process is killed."""

import json
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ghn_jax.deepnets.files.hdf5 import Hdf5File
from ghn_jax.deepnets.files.json_scanner import parse_json
from ghn_jax.deepnets.files.records import MOST_NODES, graph_checksum, parse_record
from ghn_jax.deepnets.files.tables import TYPES, op_names
from ghn_jax.deepnets.files.writer import add_pair, make_entry, new_hdf5
from ghn_jax.deepnets.sampler import REJECTIONS, sample_args
from ghn_jax.deepnets.statistics import COLUMNS, measure
from ghn_jax.files import atomic_file

_PATHS_MEASURED_EVERY = 10
"""The mean path costs as much as everything else together, so only every tenth architecture's is measured."""

_MOST_BYTES = 2**30


class Notes(NamedTuple):
    """What a part holds beside its graphs.

    Attributes:
      records: JSON text of each architecture.
      rows: float64 (architectures, len(COLUMNS)) statistics.
      rejections: int64 (len(REJECTIONS),) draws thrown away, by reason.
    """

    records: list[str]
    rows: np.ndarray
    rejections: np.ndarray


def make_part(file: pathlib.Path, split: str, seed: int, part: range) -> None:
    """Makes one part: graphs, JSON texts and statistics of some architectures."""
    records, rows = [], []
    rejections = [0] * len(REJECTIONS)
    with atomic_file(file) as partial, new_hdf5(partial) as out:
        nets = out.create_group("nets")
        for index in part:
            args, reasons = sample_args(split, index, seed)
            for reason in reasons:
                rejections[REJECTIONS.index(reason)] += 1
            entry = make_entry(split, args, f"{split}/{index}")
            add_pair(nets, str(index), entry.nodes, entry.adj)
            records.append(json.dumps(entry.record))
            rows.append(measure(entry.graph, args, path=index % _PATHS_MEASURED_EVERY == 0))
        notes = json.dumps({"records": records, "rejections": rejections})
        out.create_dataset("notes", data=np.frombuffer(notes.encode(), np.uint8))
        out.create_dataset("statistics", data=np.array(rows, "<f8").view(np.uint8).ravel())


def read_notes(file: pathlib.Path, part: range) -> Notes:
    """Raises ValueError naming a damaged part."""
    with Hdf5File(file) as source:
        return _notes(source, part)


def read_pairs(file: pathlib.Path, part: range) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """Nodes, distances and JSON text of each architecture; raises ValueError naming a damaged part."""
    names = op_names()
    with Hdf5File(file) as source:
        for index, text in zip(part, _notes(source, part).records, strict=True):
            nodes = source.array(f"nets/{index}/nodes", np.uint16, 2, 3 * MOST_NODES)
            adj = source.array(f"nets/{index}/adj", np.uint8, 2, MOST_NODES**2)
            try:
                record = parse_json(text.encode())
                parse_record(record, num_classes=10, image_size=32)
                labels = [(TYPES[kind], cell, names[op]) for kind, cell, op in nodes.tolist()]
                if graph_checksum(labels, adj) != record["graph_checksum"]:
                    raise ValueError("its graph is not as it was written")
            except (ValueError, LookupError, TypeError) as error:
                raise _damaged(file, f"architecture {index}: {error}") from error
            yield nodes, adj, text


def _notes(source: Hdf5File, part: range) -> Notes:
    text = source.array("notes", np.uint8, 1, _MOST_BYTES).tobytes()
    rows = source.array("statistics", np.uint8, 1, _MOST_BYTES).tobytes()
    try:
        notes = parse_json(text)
        records, rejections = notes["records"], np.array(notes["rejections"], np.int64)
        rows = np.frombuffer(rows, "<f8").reshape(len(part), len(COLUMNS))
        if len(records) != len(part) or rejections.shape != (len(REJECTIONS),):
            raise ValueError("it holds another number of architectures")
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise _damaged(source.path, str(error)) from error
    return Notes(records, rows, rejections)


def _damaged(file: str | os.PathLike[str], what: str) -> ValueError:
    return ValueError(f"{os.fspath(file)} is damaged ({what}); remove it, and the same command makes it anew")

"""Makes a whole split as a dataset file, on several processes, in parts that survive a crash."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable

import h5py
import numpy as np

from ghn_jax.deepnets.files.hdf5 import array, dataset, group, open_file
from ghn_jax.deepnets.files.meta_file import meta_path
from ghn_jax.deepnets.files.tables import fingerprint
from ghn_jax.deepnets.files.writer import DatasetWriter, add_pair, finish_naming, make_entry
from ghn_jax.deepnets.sampler import REJECTIONS, sample_args
from ghn_jax.deepnets.splits import split_rules
from ghn_jax.deepnets.statistics import COLUMNS, measure
from ghn_jax.deepnets.workers import process_pool
from ghn_jax.files import atomic_file, remove_folder

_PATHS_MEASURED_EVERY = 10
"""The mean path costs as much as everything else together, so only every tenth architecture's is measured."""


@dataclasses.dataclass(frozen=True, slots=True)
class GenerationPlan:
    """What is made; two runs with equal plans may share their parts.

    Attributes:
      split, seed, count: architectures 0 .. count - 1 of (split, seed).
      part_size: architectures of a part, the unit that is kept after a crash. Does not change the result.
    """

    split: str
    seed: int
    count: int
    part_size: int = 1_000

    def __post_init__(self) -> None:
        split_rules(self.split)
        if self.split == "predefined":
            raise ValueError("split 'predefined' is a list of two networks; there is nothing to generate")
        if self.count < 1 or self.part_size < 1 or self.seed < 0:
            raise ValueError(
                f"count and part_size must be at least 1 and seed not negative, got {self.count}, {self.part_size} "
                f"and {self.seed}"
            )

    @property
    def parts(self) -> list[range]:
        """Indices of the architectures of each part."""
        starts = range(0, self.count, self.part_size)
        return [range(start, min(start + self.part_size, self.count)) for start in starts]


@dataclasses.dataclass(frozen=True, eq=False)
class Generated:
    """What came of it.

    Attributes:
      rows: float64 (count, len(COLUMNS)) statistics of each architecture.
      rejections: number of draws thrown away, by reason.
    """

    rows: np.ndarray
    rejections: dict[str, int]


Progress = Callable[[str, int], None]
"""Called with what is being done ("making" or "joining") and how many more architectures are done."""


def generate_dataset(path: str | os.PathLike[str], plan: GenerationPlan, workers: int, progress: Progress) -> Generated:
    """Makes ``NAME.hdf5`` and ``NAME_meta.json``; the content depends on the plan alone.

    Finished parts wait in ``NAME.parts`` until all are there. A run that was killed, at whatever moment, is taken up
    again by the same call.

    Raises:
      ValueError: if the files exist, or if the parts that wait belong to another plan.
    """
    path = pathlib.Path(path)
    finish_naming(path)
    folder = path.with_suffix(".parts")
    note = folder / "plan.json"
    text = plan_text(plan)
    finals = [final for final in (path, meta_path(path)) if final.exists()]
    # Parts are removed last: if both files are there and the parts too, a run was killed when all was made.
    complete = len(finals) == 2 and note.exists() and note.read_text() == text
    if finals and not complete:
        raise ValueError(f"{finals[0]} exists; remove it first or choose another name")
    files = [folder / f"{number:06d}.hdf5" for number in range(len(plan.parts))]
    if not complete:
        _claim(note, text)
        _make_parts(files, plan, workers, progress)
        _join(path, files, plan, progress)
    generated = _collect(files)
    remove_folder(folder)
    return generated


def _make_parts(files: list[pathlib.Path], plan: GenerationPlan, workers: int, progress: Progress) -> None:
    """Makes the parts that are missing, on several processes; after an error, those begun are still finished."""
    missing = []
    for file, part in zip(files, plan.parts, strict=True):
        if file.exists():
            progress("making", len(part))
        else:
            missing.append((file, part))
    if not missing:
        return
    with process_pool(workers) as pool:
        try:
            running = {pool.submit(make_part, file, plan.split, plan.seed, part): part for file, part in missing}
            for done in concurrent.futures.as_completed(running):
                done.result()
                progress("making", len(running[done]))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # else all the others would be made first
            raise


def make_part(file: pathlib.Path, split: str, seed: int, part: range) -> None:
    """Makes one part: graphs, JSON texts and statistics of some architectures."""
    records, rows = [], []
    rejections = np.zeros(len(REJECTIONS), np.int64)
    with atomic_file(file) as partial, h5py.File(partial, "w") as out:
        nets = out.create_group("nets")
        for index in part:
            args, reasons = sample_args(split, index, seed)
            for reason in reasons:
                rejections[REJECTIONS.index(reason)] += 1
            entry = make_entry(split, args, f"{split}/{index}")
            add_pair(nets, str(index), entry)
            records.append(json.dumps(entry.record))
            rows.append(measure(entry.graph, args, path=index % _PATHS_MEASURED_EVERY == 0))
        out.create_dataset("records", data=records, dtype=h5py.string_dtype())
        out.create_dataset("statistics", data=np.array(rows, np.float64).reshape(-1, len(COLUMNS)))
        out.create_dataset("rejections", data=rejections)


def plan_text(plan: GenerationPlan) -> str:
    """What stands beside the parts: equal texts mean that parts may be shared."""
    return json.dumps({**dataclasses.asdict(plan), "tables": fingerprint()})


def _claim(note: pathlib.Path, text: str) -> None:
    """Writes the plan beside the parts that will be, or checks that the parts there are this plan's."""
    folder = note.parent
    there = note.read_text() if note.exists() else "without a plan" if any(folder.glob("*.hdf5")) else None
    if there is None:
        with atomic_file(note) as partial:
            partial.write_text(text)
    elif there != text:
        raise ValueError(f"{folder} holds parts of another run ({there}); remove it or choose another name")


def _join(path: pathlib.Path, files: list[pathlib.Path], plan: GenerationPlan, progress: Progress) -> None:
    """Writes the two files from the parts."""
    with DatasetWriter(path) as writer:
        for file, part in zip(files, plan.parts, strict=True):
            with open_file(file) as source:
                records = dataset(source, "records").asstr()[:]
                for index, record in zip(part, records, strict=True):
                    writer.add_copy(plan.split, group(source, f"nets/{index}"), record)
            progress("joining", len(part))


def _collect(files: list[pathlib.Path]) -> Generated:
    """Statistics of the parts."""
    rows, rejections = [], np.zeros(len(REJECTIONS), np.int64)
    for file in files:
        with open_file(file) as source:
            rows.append(array(source, "statistics"))
            rejections += array(source, "rejections").astype(np.int64)
    return Generated(np.concatenate(rows), dict(zip(REJECTIONS, rejections.tolist(), strict=True)))

"""Makes a whole split as a dataset file, on several processes, in parts that survive a crash."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ghn_jax.deepnets.files.meta_file import MetaFile, meta_path
from ghn_jax.deepnets.files.parts import make_part, read_notes, read_pairs
from ghn_jax.deepnets.files.tables import fingerprint
from ghn_jax.deepnets.files.writer import DatasetWriter, finish_naming
from ghn_jax.deepnets.sampler import REJECTIONS
from ghn_jax.deepnets.splits import split_rules
from ghn_jax.deepnets.workers import process_pool
from ghn_jax.files import atomic_file, remove_folder


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


Report = Callable[[Generated], None]
"""Called with what came of it when both files are there; what it does is done again if the process is killed then."""


def generate_dataset(
    path: str | os.PathLike[str],
    plan: GenerationPlan,
    workers: int,
    progress: Progress,
    report: Report = lambda generated: None,
) -> Generated | None:
    """Makes ``NAME.hdf5`` and ``NAME_meta.json``; the content depends on the plan alone.

    Finished parts wait in ``NAME.parts`` until the files are there and `report` has ended. A run that was killed, at
    whatever moment, is taken up again by the same call.

    Args:
      path: of the HDF5 file.
      plan: what is made.
      workers: processes.
      progress: told how far it is.
      report: told what came of it.

    Returns:
      What came of it; None if the files of this very plan were there already, and nothing was left to do.

    Raises:
      ValueError: if the files exist and are others, if the parts that wait belong to another plan, or if one of them is
        damaged.
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
        if len(finals) == 2 and not folder.exists() and _is_made(path, plan):
            return None
        raise ValueError(f"{finals[0]} exists; remove it first or choose another name")
    files = [folder / f"{number:06d}.hdf5" for number in range(len(plan.parts))]
    if not complete:
        _claim(note, text)
        _make_parts(files, plan, workers, progress)
        _join(path, files, plan, progress)
    generated = _collect(files, plan)
    report(generated)
    remove_folder(folder)
    return generated


def _content(plan: GenerationPlan) -> dict[str, Any]:
    """What decides the content: equal ones mean equal files."""
    return {"split": plan.split, "seed": plan.seed, "count": plan.count, "tables": fingerprint()}


def _is_made(path: pathlib.Path, plan: GenerationPlan) -> bool:
    """Whether the files that are there were made by this plan; their content is not looked at."""
    try:
        return MetaFile.scan(meta_path(path), plan.split).plan == _content(plan)
    except ValueError:
        return False


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


def plan_text(plan: GenerationPlan) -> str:
    """What stands beside the parts: equal texts mean that parts may be shared."""
    return json.dumps({**_content(plan), "part_size": plan.part_size})


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
    with DatasetWriter(path, _content(plan)) as writer:
        for file, part in zip(files, plan.parts, strict=True):
            for nodes, adj, record in read_pairs(file, part):
                writer.add_made(plan.split, nodes, adj, record)
            progress("joining", len(part))


def _collect(files: list[pathlib.Path], plan: GenerationPlan) -> Generated:
    """Statistics of the parts."""
    notes = [read_notes(file, part) for file, part in zip(files, plan.parts, strict=True)]
    rejections = np.sum([note.rejections for note in notes], axis=0)
    rows = np.concatenate([note.rows for note in notes])
    return Generated(rows, dict(zip(REJECTIONS, rejections.tolist(), strict=True)))

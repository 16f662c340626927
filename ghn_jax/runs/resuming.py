"""Taking up a run's folder: it is held for one run, and what the run goes on from is found."""

import contextlib
import logging
import pathlib
from collections.abc import Generator
from typing import Any, Generic, NamedTuple, TypeVar

import jax

from ghn_jax.runs.checkpoints import (
    FOLDER,
    checkpoint_folder,
    remove_unfinished,
    restore,
    saved_steps,
    set_aside,
)
from ghn_jax.runs.devices import agree
from ghn_jax.runs.lock import folder_lock
from ghn_jax.runs.records import DamagedCheckpointError, read_record

State = TypeVar("State")

_LOG = logging.getLogger(__name__)


class Resumed(NamedTuple, Generic[State]):
    """Where a run begins.

    Attributes:
      done: updates made before.
      state: after them.
      position: of the batches; None at the start.
    """

    done: int
    state: State
    position: Any


@contextlib.contextmanager
def held_run(folder: pathlib.Path) -> Generator[None]:
    """Holds a run's folder, by the first of its processes (`jax.distributed`), and clears away what kills left.

    Raises:
      ValueError: on every process, if another run holds it.
      OSError: if nothing can be written there.
    """
    with contextlib.ExitStack() as stack:
        failure = None
        if jax.process_index() == 0:
            try:
                stack.enter_context(folder_lock(folder))
                remove_unfinished(folder)
            except (ValueError, OSError) as error:
                failure = error
        (failed,) = agree(failure is not None)
        if failed:
            raise failure or ValueError(f"the first process of the run cannot use {folder}: it says why")
        yield


def newest_state(folder: pathlib.Path, initial: State) -> Resumed[State]:
    """The state of the newest whole checkpoint of a folder, or the initial one if it has no checkpoints.

    Damaged ones that are newer are moved aside, which is logged; so are older ones whose record is damaged.

    Args:
      folder: of a run that this process holds.
      initial: state before the first update; a restored one takes its structure, types and placement.

    Raises:
      ValueError: if the folder has checkpoints, but none is whole, or they are of another task. Nothing is moved then.
    """
    damaged: dict[int, str] = {}
    for step in reversed(saved_steps(folder)):
        state, rest, failure = initial, dict[str, Any](), ""
        try:
            state, rest = restore(folder, step, initial)
        except DamagedCheckpointError as error:
            failure = str(error)
        (failed,) = agree(bool(failure))
        if failed:
            damaged[step] = failure or "found damaged by another process of the run"
            continue
        damaged.update(_without_record(folder, step))
        _set_aside(folder, damaged, step)
        return Resumed(step, state, rest["position"])
    if damaged:
        raise ValueError(
            f"{folder / FOLDER}: no checkpoint is whole: {'; '.join(damaged.values())}. To begin anew, move it away"
        )
    return Resumed(0, initial, None)


def _without_record(folder: pathlib.Path, before: int) -> dict[int, str]:
    """Older checkpoints that cannot be ranked, and why."""
    found: dict[int, str] = {}
    for step in saved_steps(folder):
        if step < before:
            try:
                read_record(checkpoint_folder(folder, step))
            except DamagedCheckpointError as error:
                found[step] = str(error)
    return found


def _set_aside(folder: pathlib.Path, damaged: dict[int, str], whole: int) -> None:
    """Moves damaged checkpoints away and says so."""
    if jax.process_index() == 0:
        for step, reason in sorted(damaged.items()):
            _LOG.warning("damaged checkpoint: %s; it lies in %s now", reason, set_aside(folder, step))
        if any(step > whole for step in damaged):
            _LOG.warning("the run goes on from the newest whole checkpoint, that of %d updates", whole)
    agree(False)  # nobody goes on before the names are free

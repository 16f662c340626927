"""The compiled layers that a process holds, and how many it may."""

import collections
import dataclasses
import functools
import logging
import os
import pathlib
import threading
import time
import weakref
from collections.abc import Iterable

from ghn_jax.networks.programs import Program, ProgramKey, compile_program

PROGRAM_BYTES = 2**21
"""Memory of a compiled layer, forward and backward: 1.5 to 2.2 MB measured on average, whatever the size of images."""

_LOG = logging.getLogger(__name__)
_MAPS = pathlib.Path("/proc/self/maps")
_MOST_MAPS = pathlib.Path("/proc/sys/vm/max_map_count")


def count_mappings() -> int | None:
    """Memory mappings of this process, of which compiled layers take most; None where the system does not say.

    Takes 0.6 ms for 3,000 mappings.
    """
    try:
        return _MAPS.read_bytes().count(b"\n")
    except OSError:
        return None


@dataclasses.dataclass(frozen=True)
class Bound:
    """How much a process may hold.

    Linux ends a process that needs more mappings than ``vm.max_map_count`` (65,530 unless an administrator raises it),
    often by a segmentation fault. The bound on programs is one on memory.

    Attributes:
      programs: compiled layers held at most.
      mappings: memory mappings of the whole process from which on layers are dropped; None for no bound.
    """

    programs: int
    mappings: int | None

    def __post_init__(self) -> None:
        if self.programs < 1:
            raise ValueError(f"compiled layers: at least 1 must be held, got a bound of {self.programs}")

    @classmethod
    def of_system(cls) -> "Bound":
        """A fifteenth of the machine's memory, and four fifths of the mappings that the system allows a process."""
        try:
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):  # not a Unix
            memory = 2**34
        try:
            mappings = int(_MOST_MAPS.read_text()) * 4 // 5
        except OSError:  # not Linux
            mappings = None
        return cls(max(1, memory // 15 // PROGRAM_BYTES), mappings)


@dataclasses.dataclass(frozen=True)
class CompileReport:
    """Work of a `Programs` so far.

    Attributes:
      compiled: layers compiled for the first time (a forward and its backward count once); with a persistent cache that
        has them, read from it.
      reloaded: layers compiled again, or read again from the persistent cache, because they had been dropped.
      seconds: time that both took, summed over threads.
      requests: look-ups.
      held: layers held now.
      dropped: layers dropped because of the bound, as often as they were.
      mappings: of the whole process after the last compilation; None where the system does not say.
    """

    compiled: int
    reloaded: int
    seconds: float
    requests: int
    held: int
    dropped: int
    mappings: int | None


class Programs:
    """Cache of compiled layers, safe to use from several threads; the least recently used go first.

    A layer that was dropped is compiled again when it is wanted again: in about 50 ms where the persistent compilation
    cache is on, four fifths of which is tracing. Whatever a network in progress still uses stays alive, and is found
    here, until that network is done.

    Args:
      bound: None for `Bound.of_system`.
    """

    def __init__(self, bound: Bound | None = None) -> None:
        self.bound = bound or Bound.of_system()
        self._lock, self._bound_lock = threading.Lock(), threading.Lock()
        self._held: collections.OrderedDict[ProgramKey, Program] = collections.OrderedDict()
        self._alive: weakref.WeakValueDictionary[ProgramKey, Program] = weakref.WeakValueDictionary()
        self._seen: set[ProgramKey] = set()
        self._under_way: dict[ProgramKey, threading.Event] = {}
        self._compiled = self._reloaded = self._requests = self._dropped = 0
        self._seconds = 0.0
        self._mappings = count_mappings()

    def get(self, key: ProgramKey) -> Program:
        """The programs of `key`, compiled now unless held or under way in another thread."""
        while True:
            with self._lock:
                self._requests += 1
                program = self._alive.get(key)
                if program is not None:
                    self._held[key] = program
                    self._held.move_to_end(key)
                    return program
                waiting = self._under_way.get(key)
                if waiting is None:
                    self._under_way[key] = threading.Event()
            if waiting is None:
                return self._compile(key)
            waiting.wait()

    def missing(self, keys: Iterable[ProgramKey]) -> list[ProgramKey]:
        """Those that would have to be compiled now."""
        with self._lock:
            return [key for key in keys if key not in self._alive]

    def _compile(self, key: ProgramKey) -> Program:
        start = time.perf_counter()
        try:
            program = compile_program(key)
            with self._lock:
                self._held[key] = self._alive[key] = program
                again = key in self._seen
                self._seen.add(key)
                self._reloaded += again
                self._compiled += not again
                self._seconds += time.perf_counter() - start
        finally:
            with self._lock:
                self._under_way.pop(key).set()
        self._keep_bound()
        return program

    def _keep_bound(self) -> None:
        """Drops the least recently used while more is held than allowed; one, the newest, always stays."""
        with self._bound_lock:
            while going := self._excess():
                del going  # what no network uses is unmapped here

    def _excess(self) -> list[Program]:
        """Layers just dropped, a part of those that have to go."""
        mappings = count_mappings()
        with self._lock:
            self._mappings = mappings
            held = len(self._held)
            crowded = mappings is not None and self.bound.mappings is not None and mappings > self.bound.mappings
            # An eighth at a time, because counting mappings is not free.
            excess = max(held - self.bound.programs, (held // 8 or 1) if crowded else 0)
            going = [self._held.popitem(last=False)[1] for _ in range(min(excess, held - 1))]
            first = bool(going) and not self._dropped
            self._dropped += len(going)
        if first:
            _LOG.warning(
                "compiled layers: %d are held in a process of %s memory mappings, and %d in %s are allowed: from now "
                "on the least recently used are dropped, and read back when they are wanted again. On Linux "
                "`sysctl vm.max_map_count=262144` allows more mappings",
                held,
                mappings,
                self.bound.programs,
                self.bound.mappings,
            )
        return going

    def clear(self) -> None:
        """Drops everything."""
        with self._lock:
            self._held.clear()

    def report(self) -> CompileReport:
        """What was compiled so far."""
        with self._lock:
            return CompileReport(
                self._compiled,
                self._reloaded,
                self._seconds,
                self._requests,
                len(self._held),
                self._dropped,
                self._mappings,
            )


@functools.cache
def shared_programs() -> Programs:
    """The layers of all runners of this process that are not given others: the bounds are those of a process."""
    return Programs()

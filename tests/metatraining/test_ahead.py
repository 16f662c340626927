"""Training batches wait for their programs, in order, and say what they wait for."""

import itertools
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from ghn_jax.deepnets import MetaBatch
from ghn_jax.metatraining.ahead import MetaBatches
from ghn_jax.runs.progress import Progress

SHAPE = (2, 8, 8, 3)


class Lines:
    """Keeps lines of progress, and lets the compilation go on after the first."""

    def __init__(self, compiled: threading.Event) -> None:
        self.every, self.lines, self._compiled = 0.0, [], compiled

    def say(self, text: str) -> None:
        raise AssertionError(text)

    def progress(self, text: str) -> None:
        self.lines.append(text)
        self._compiled.set()


class Step:
    """Compiles one of three layers, and the others when it is allowed to."""

    def __init__(self, compiled: threading.Event) -> None:
        self.warmed: list[int] = []
        self._compiled = compiled

    def warm(self, batch: MetaBatch, image_shape: tuple[int, ...], tell: Callable[[int, int], None]) -> None:
        assert image_shape == SHAPE
        if batch.start == 40:
            raise RuntimeError("no memory to compile")
        tell(1, 3)
        assert self._compiled.wait(60)
        self.warmed.append(batch.start)


class Images:
    """The number of the batch in place of images."""

    closed = False

    def batch(self, number: int) -> int:
        return number

    def close(self) -> None:
        self.closed = True


def test_batches_come_in_order_when_their_layers_are_compiled() -> None:
    compiled = threading.Event()
    step, lines = Step(compiled), Lines(compiled)
    source = (MetaBatch(start, start + 8, (), ()) for start in itertools.count(8, 8))
    progress = Progress(9, 5, "train", lines, waiting="compiling")
    images: Any = Images()
    batches = MetaBatches(source, images, cast(Any, step), SHAPE, first=5, ahead=2, threads=1, progress=progress)
    try:
        for number in (5, 6, 7):
            architectures, number_of_images = batches.next()
            assert (architectures.start, batches.position) == (8 * (number - 4), 8 * (number - 3))
            assert cast(int, number_of_images) == number
        assert step.warmed[:3] == [8, 16, 24]
        assert lines.lines[0] == "train 5/9  compiling  1 of 3 layers for update 6, waited 1 s"
        batches.next()
        with pytest.raises(RuntimeError, match="no memory to compile"):
            batches.next()
        assert not images.closed
    finally:
        batches.close()
    assert images.closed

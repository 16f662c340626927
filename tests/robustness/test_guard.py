"""The harness finds what it is to find, and damage is the same for the same seed."""

import os
import pathlib
import random
import signal
from typing import Any

import numpy as np
import pytest
from robustness import guard
from robustness.damage import damaged, damaged_copies
from robustness.guard import counts, faults, fingerprint, read_all


def misbehave(path: pathlib.Path) -> Any:
    """Does what the file's text says."""
    text = path.read_text()
    if text == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif text == "exit":
        os._exit(3)
    elif text == "hang":
        while True:
            pass
    elif text == "declared":
        np.zeros(10**13, np.uint8)
    elif text == "touched":
        np.ones(120_000_000, np.uint8)
    elif text == "bare":
        raise KeyError(path.name)
    elif text == "nameless":
        raise ValueError("a file is damaged")
    elif text == "refused":
        raise ValueError(f"{path} is damaged")
    return {"text": "good" if text == "same" else text}


def test_every_ending_is_told_apart(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SECONDS", 1.0)
    monkeypatch.setattr(guard, "MEMORY_BYTES", 10**8)
    expected = {
        "crash": "crash",
        "exit": "crash",
        "refused": "refused",
        "hang": "hang",
        "declared": "memory",
        "touched": "memory",
        "bare": "bare",
        "nameless": "bare",
        "other": "silent",
        "same": "good",
        "good": "good",
    }
    for text in expected:
        (tmp_path / f"{text}.txt").write_text(text)
    outcomes = read_all(misbehave, tmp_path / "good.txt", [tmp_path / f"{text}.txt" for text in expected])
    assert {outcome.file.stem: outcome.kind for outcome in outcomes} == expected
    assert "SIGSEGV" in outcomes[0].detail
    assert len(faults(outcomes)) == 8
    assert counts(outcomes)["memory"] == 2
    with pytest.raises(RuntimeError, match="undamaged file"):
        read_all(misbehave, tmp_path / "bare.txt", [tmp_path / "good.txt"])


def test_fingerprints_tell_contents_apart() -> None:
    values = [1, 1.0, True, "1", None, [1], [[1]], [1, 1], {"a": 1}, {"b": 1}, {1: "a"}]
    values += [np.ones(1, dtype) for dtype in (np.int32, np.float32)] + [np.ones((1, 1), np.int32), -np.ones(1)]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint({"a": np.arange(3)}) == fingerprint({"a": np.arange(3)})


def test_damage_is_never_none_and_the_same_for_a_seed(tmp_path: pathlib.Path) -> None:
    data = random.Random(0).randbytes(900)
    kinds = set()
    for seed in range(300):
        (name, changed), again = (damaged(data, random.Random(seed), [range(4, 12)]) for _ in range(2))
        assert again == (name, changed)
        assert changed != data
        kinds.add(name)
    assert len(kinds) == 9
    for short in (b"ab", b"abc"):
        assert all(damaged(short, random.Random(seed))[1] != short for seed in range(100))
    good = tmp_path / "good"
    (good / "part").mkdir(parents=True)
    for name in ("a", "part/b", "part/c"):
        (good / name).write_bytes(data + name.encode())

    def contents(folder: pathlib.Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    first, second = (damaged_copies(good, tmp_path / into, 40, seed=7) for into in ("first", "second"))
    assert [path.name for path in first] == [path.name for path in second]
    assert {path.name.rpartition("-")[2] for path in first} >= {"lost", "emptied", "exchanged", "cut"}
    for one, other in zip(first, second, strict=True):
        assert contents(one) == contents(other) != contents(good)

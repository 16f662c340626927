"""Result files of the PyTorch release: what networks of DeepNets-1M came to, and the published tables from them."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from ghn_jax.properties.ranking import tau
from ghn_jax.text_tables import aligned

SPLITS = ("val", "test", "wide", "deep", "dense", "bnfree", "predefined")
SETS = ("val", "test")
"""Splits whose networks have all properties; of the others only test accuracies are right in the files."""

NEVER = 2.0
"""What the files hold as the convergence time of a network that never converged."""

MOST_BYTES = 50_000_000

_PREDICTED = {"GHN-2": "ghn2_test_acc", "GHN-1": "ghn1_test_acc", "MLP": "mlp_test_acc"}


@dataclasses.dataclass(frozen=True, slots=True)
class Released:
    """A network of the files; what a file does not hold, or holds wrongly, is NaN.

    Attributes:
      clean: accuracy after training, %: on validation images in the splits val and test, else on test images.
      noisy: the same on images with noise.
      seconds: for one pass over the test images; no unit is given with the files.
      convergence: share of the run after which it has converged; infinity if never.
      params: weights.
      test: accuracy on test images after training, %.
      predicted: of parameters predicted by each hypernetwork, on test images, %.
      epochs: numbers of epochs of the extended file, () without it.
      curve: accuracy on test images after each of them, %.
    """

    clean: float
    noisy: float
    seconds: float
    convergence: float
    params: int
    test: float
    predicted: Mapping[str, float]
    epochs: tuple[int, ...] = ()
    curve: tuple[float, ...] = ()


EPOCHS = (1, 5, 10, 20, 30, 40, 50)


def read_released(path: pathlib.Path) -> dict[str, list[Released]]:
    """Networks of a result file by split, in the order of their numbers.

    In the extended file, properties of the splits beside val and test are those of one network copied to all: they are
    left out here (NaN), as are predictions of the other hypernetworks in deep, dense and bnfree, which are GHN-2's.

    Raises:
      ValueError: for another file; names it.
    """
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} is no result file of the release: there is none, or it is too large")
    try:
        data = json.loads(path.read_text("utf-8"))
        splits = [split for split in SPLITS if split in data]
        if not splits:
            raise ValueError(f"none of the splits {', '.join(SPLITS)}")
        return {split: [_network(split, row) for row in _rows(data[split])] for split in splits}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is no result file of the release: {type(error).__name__}: {error}") from None


def _rows(found: Mapping[str, Mapping[str, object]]) -> list[Mapping[str, object]]:
    numbered = all(key.isdecimal() for key in found)
    return [found[key] for key in (sorted(found, key=int) if numbered else found)]


def _network(split: str, row: Mapping[str, object]) -> Released:
    extended = isinstance(row["test_acc"], list)
    last = lambda key: _number(row[key][-1] if isinstance(row[key], list) else row[key])  # type: ignore[index]  # noqa: E731
    whole = split in SETS
    converged = _number(row["converge_time"]) if whole else math.nan
    others_wrong = extended and split in ("deep", "dense", "bnfree")
    predicted = {
        name: _number(row[key])
        for name, key in _PREDICTED.items()
        if key in row and (name == "GHN-2" or not others_wrong)
    }
    return Released(
        clean=last("val_acc") if whole else last("test_acc"),
        noisy=last("val_acc_noise") if whole and "val_acc_noise" in row else math.nan,
        seconds=_number(row["time"]) if whole else math.nan,
        convergence=math.inf if converged == NEVER else converged,
        params=int(_number(row["params"])),
        test=last("test_acc"),
        predicted=predicted,
        epochs=EPOCHS if extended else (),
        curve=tuple(_number(value) for value in row["test_acc"]) if extended else (),  # type: ignore[union-attr]
    )


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"a number was expected, got {value!r}")
    return float(value)


def published_table(networks: Mapping[str, Sequence[Released]]) -> str:
    """Accuracies by split as the paper's tables have them: mean, standard error (n) and maximum, %."""
    names = ("after training", *_PREDICTED)
    rows: list[tuple[str, ...]] = [("split", "networks", *names)]
    for split, found in networks.items():
        cells = [split, str(len(found)), _cell([one.test for one in found])]
        cells += [_cell([one.predicted.get(name, math.nan) for one in found]) for name in _PREDICTED]
        rows.append(tuple(cells))
    return "\n".join(aligned(rows))


def _cell(values: Sequence[float]) -> str:
    """As the release counts errors: population deviation over the root of n."""
    known = np.array(values)
    if np.isnan(known).any():
        return "-"
    return f"{known.mean():.1f} +- {known.std() / math.sqrt(len(known)):.1f} ({known.max():.1f})"


def published_taus(networks: Sequence[Released]) -> dict[str, float]:
    """Kendall's tau of what networks' accuracy after training could be told from, without training them whole."""
    truth = [one.clean for one in networks]
    found = {"parameters": _tau([one.params for one in networks], truth)}
    for name in _PREDICTED:
        found[f"{name}, predicted"] = _tau([one.predicted.get(name, math.nan) for one in networks], truth)
    if networks and networks[0].curve:
        tests = [one.test for one in networks]
        for place, epochs in enumerate(EPOCHS[:2]):
            name = f"{epochs} epoch{'s' if epochs > 1 else ''} of training"
            found[name] = _tau([one.curve[place] for one in networks], tests)
    return found


def _tau(values: Sequence[float], truth: Sequence[float]) -> float:
    return math.nan if np.isnan(values).any() else tau(np.array(values), np.array(truth))

"""Tables and files of scores."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ghn_jax.deepnets.statistics import standard_error
from ghn_jax.evaluation.accuracy import Evaluator, Score
from ghn_jax.evaluation.architectures import Named
from ghn_jax.files import atomic_file
from ghn_jax.hypernet.json_fields import append_lines, read_lines
from ghn_jax.runs.memory import give_back
from ghn_jax.runs.progress import Progress
from ghn_jax.text_tables import aligned

SCORES_FILE = "scores.jsonl"
QUESTION_FILE = "question.json"

RANDOM_INIT_LABELS = {"he": "He init", "torch": "PyTorch init"}
"""What tables call the rules of random initialisation (`networks.random_init`)."""


def summary_table(
    scores: Sequence[Score],
    chance: float,
    random_init: str = "he",
    *,
    passed_over: int = 0,
    held_out: int = 0,
    held_out_rule: str = "kept for evaluation",
    skipped: int = 0,
) -> str:
    """Mean, standard error over architectures (n - 1) and maximum, predicted and randomly initialised, in per cent.

    Args:
      scores: of the architectures.
      chance: accuracy of a guess, in [0, 1].
      random_init: the rule that they hold scores of.
      passed_over: networks that training passed over because their meta-batch had too many nodes.
      held_out: draws that training left out.
      held_out_rule: which ones, in words (`ArchitectureConfig.held_out_rule`).
      skipped: pictures left out because they cannot be read.

    Raises:
      ValueError: without scores.
    """
    if not scores:
        raise ValueError("a table needs at least one score")
    rows: list[tuple[str, ...]] = [("parameters", "top-1 mean", "std. error", "top-1 max", "top-5 mean")]
    groups = [("predicted", [s.top1 for s in scores], [s.top5 for s in scores])]
    random1, random5 = ([s.random_top1 for s in scores], [s.random_top5 for s in scores])
    if None not in random1:
        label = RANDOM_INIT_LABELS[random_init]
        groups.append((label, [v for v in random1 if v is not None], [v for v in random5 if v is not None]))
    for name, top1, top5 in groups:
        error = standard_error(top1)
        numbers = (np.mean(top1), error, np.max(top1), np.mean(top5))
        rows.append((name, *("-" if np.isnan(v) else f"{100 * float(v):.1f}" for v in numbers)))
    lines = aligned(rows)
    seconds = [s.seconds for s in scores]
    lines.append(
        f"{len(scores)} architectures ({min(s.nodes for s in scores)} to {max(s.nodes for s in scores)} nodes, "
        f"{min(s.params for s in scores):,} to {max(s.params for s in scores):,} weights); chance {100 * chance:.1f}; "
        f"one prediction took {1000 * float(np.median(seconds)):.0f} ms (median), {1000 * max(seconds):.0f} ms at most"
    )
    if passed_over or held_out:
        lines.append(
            f"training passed over {passed_over:,} networks of meta-batches with too many nodes and left out "
            f"{held_out:,} draws that are {held_out_rule}"
        )
    if skipped:
        lines.append(f"{skipped:,} pictures that cannot be read were left out")
    return "\n".join(lines)


def score_all(evaluator: Evaluator, architectures: Sequence[Named], path: pathlib.Path) -> list[Score]:
    """Scores of the architectures: those in the file as they are, the others now, each added to it at once.

    Raises:
      ValueError: if the file is of something else.
    """
    there = {score.name: score for score in read_scores(path)}
    missing = [item for item in architectures if item[2].name not in there]
    progress = Progress(len(architectures), len(architectures) - len(missing), "evaluation")
    for score in evaluator.scores(missing):
        append_lines(path, [score])
        there[score.name] = score
        give_back()  # arrays of one network leave holes between the programs compiled for the next
        progress.advance(f"top-1 {100 * float(np.mean([s.top1 for s in there.values()])):.1f} %")
    return [there[graph.name] for _, _, graph in architectures]


def claim_folder(folder: pathlib.Path, question: dict[str, Any], *, answered: bool) -> None:
    """Notes in a folder of results what they answer; what is noted in one without results does not count.

    Args:
      folder: of results.
      question: what they depend on, as JSON.
      answered: whether there are results.

    Raises:
      ValueError: if the folder holds results of another question, or of one that cannot be read; names the differences.
    """
    path = folder / QUESTION_FILE
    if path.exists() and answered:
        try:
            there = json.loads(path.read_text())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is damaged ({error}): remove it if {folder} holds what is asked for") from None
        there = there if isinstance(there, dict) else {}
        pairs = [(name, there.get(name), value) for name, value in question.items()]
        changed = [f"{name} was {old!r}, now {new!r}" for name, old, new in pairs if old != new]
        if changed:
            raise ValueError(f"{folder} holds other results ({'; '.join(changed)}): choose another --out, or remove it")
    with atomic_file(path) as new:
        new.write_text(json.dumps(question, indent=1) + "\n")


def read_scores(path: pathlib.Path) -> list[Score]:
    """Scores of a file; see `read_lines`."""
    return read_lines(Score, path, "score")

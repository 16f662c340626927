"""Ground truth: networks of a split, trained, and what they turn out to be (paper, section 4.3)."""

import dataclasses
import json
import math
import pathlib
import shutil
import statistics
import time
from collections.abc import Iterable
from typing import Any

import jax

from ghn_jax.deepnets import NetworkArgs
from ghn_jax.deepnets.count import product_count
from ghn_jax.evaluation.accuracy import mean_top_k
from ghn_jax.evaluation.architectures import Named
from ghn_jax.evaluation.forward import network_of
from ghn_jax.evaluation.score_table import claim_folder
from ghn_jax.graphs import ArchGraph
from ghn_jax.hypernet.json_fields import append_lines, read_lines
from ghn_jax.images import ImageSet, ImageStream, eval_batches
from ghn_jax.keys import RANDOM_INITIALISATION, named_key
from ghn_jax.networks.runner import Runner
from ghn_jax.runs.lock import folder_lock
from ghn_jax.runs.memory import give_back
from ghn_jax.runs.progress import Progress, Reporter
from ghn_jax.training import Curve, Given, Net, NetTrainConfig, start_params, train_networks
from ghn_jax.training.networks import Flat
from ghn_jax.training.worth import steps_to

TRUTH_FILE = "truth.jsonl"
TIMED, WARM_UPS = 7, 2
"""Forward passes of one batch whose time is measured, and those before them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Truth:
    """A trained network.

    Attributes:
      name: of the architecture.
      number: in its split.
      params: weights.
      products: for one image.
      clean: accuracy in [0, 1] after training.
      noisy: the same on images with noise.
      seconds: of a forward pass of one batch, alone on the machine, median.
      steps, top1: the curve of accuracy over updates.
    """

    name: str
    number: int
    params: int
    products: int
    clean: float
    noisy: float
    seconds: float
    steps: tuple[int, ...]
    top1: tuple[float, ...]

    def convergence(self, level: float) -> float:
        """Share of the run after which accuracy first reaches a level in [0, 1]; 2 if it never does (paper)."""
        needed = steps_to(Curve(self.name, self.steps, self.top1, 0), level)
        return 2.0 if math.isinf(needed) else needed / self.steps[-1]


def make_truth(
    architectures: Iterable[Named],
    images: ImageSet | ImageStream,
    config: NetTrainConfig,
    folder: pathlib.Path,
    *,
    start: str = "torch",
    together: int = 4,
    asked: dict[str, Any],
    reporter: Reporter | None = None,
) -> list[Truth]:
    """Trains networks and measures them; the same call goes on where it stopped.

    Args:
      architectures: number, arguments and graph of each network.
      images: that they are trained on; accuracy is measured on `config.image_split`.
      config: of training.
      folder: of ``truth.jsonl``, a line a network.
      start: name of their start.
      together: networks trained side by side.
      asked: what else results depend on, such as the split; as JSON.
      reporter: where lines go; default: the log.

    Raises:
      ValueError: for a model that is no network of DeepNets-1M, or a folder that holds results of something else.
    """
    path = folder / TRUTH_FILE
    chosen = [_network_of_cells(item) for item in architectures]
    question = {**json.loads(json.dumps(dataclasses.asdict(config))), "start": start, **asked}
    with folder_lock(folder):
        there = {one.name: one for one in read_truth(path)}
        claim_folder(folder, question, answered=bool(there))
        missing = [item for item in chosen if item[2].name not in there]
        progress = Progress(len(chosen), len(chosen) - len(missing), "networks", reporter)
        measure = _Measure(images, config)
        for first in range(0, len(missing), together):
            group = missing[first : first + together]
            nets = [_net(item, start, config.seed) for item in group]
            run = folder / "runs" / str(group[0][0])
            curves, weights = train_networks(nets, images, config, run, reporter)
            trios = zip(group, nets, curves, strict=True)
            made = [measure(item, curve, weights[net.name]) for item, net, curve in trios]
            append_lines(path, made)  # together: what is trained side by side shall not depend on kills
            there.update((one.name, one) for one in made)
            shutil.rmtree(run)
            give_back()
            progress.advance(f"top-1 {100 * made[-1].clean:.1f} %", len(group))
    return [there[graph.name] for _, _, graph in chosen]


Item = tuple[int, NetworkArgs, ArchGraph]
"""Number, arguments and graph of a network."""


def _network_of_cells(item: Named) -> Item:
    number, model, graph = item
    if not isinstance(model, NetworkArgs):
        raise ValueError(f"ground truth is of networks of DeepNets-1M, {graph.name!r} is none")
    return number, model, graph


def _net(item: Item, start: str, seed: int) -> Net:
    number, model, graph = item
    key = jax.random.fold_in(named_key(seed, RANDOM_INITIALISATION), number)
    return Net(str(number), model, graph, start_params(start, graph, key, Given()))


class _Measure:
    """Accuracy without and with noise, and time, of trained networks."""

    def __init__(self, images: ImageSet | ImageStream, config: NetTrainConfig) -> None:
        self._runner = Runner()
        split, size, limit = config.image_split, config.test_batch, config.test_images
        self._noisy = list(eval_batches(images, split, size, limit, noise_seed=config.seed))

    def __call__(self, item: Item, curve: Curve, params: Flat) -> Truth:
        number, args, graph = item
        network = network_of(args, params, self._runner)
        return Truth(
            graph.name,
            number,
            graph.num_params,
            product_count(args),
            curve.top1[-1],
            mean_top_k(network, None, self._noisy)[0],
            _seconds(lambda: jax.block_until_ready(network.logits(self._noisy[0][0]))),
            curve.steps,
            curve.top1,
        )


def _seconds(call: Any) -> float:
    """Median of some calls, after a few that do not count."""
    times = []
    for _ in range(WARM_UPS + TIMED):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM_UPS:])


def read_truth(path: pathlib.Path) -> list[Truth]:
    """Networks of a file; see `read_lines`."""
    return read_lines(Truth, path, "trained network")

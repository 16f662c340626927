"""One meta-training step: predict parameters, run the networks on images, send gradients back into the GHN."""

import dataclasses
import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ghn_jax.deepnets import MetaBatch
from ghn_jax.deepnets.count import product_count
from ghn_jax.hypernet import GHN, predict_with_vjp
from ghn_jax.images import Batch
from ghn_jax.metatraining.norm_penalty import add_norm_penalty, warm_norm_penalty
from ghn_jax.metatraining.optimisation import OptimiserConfig, TrainState, UpdateReport, update
from ghn_jax.metatraining.warm_up import PredictionWarmUp, zeros_like
from ghn_jax.networks import network_plan
from ghn_jax.networks.program_cache import shared_programs
from ghn_jax.networks.runner import Runner
from ghn_jax.runs import devices
from ghn_jax.threads import shares, side_by_side


@dataclasses.dataclass(frozen=True, eq=False)
class StepReport:
    """What one step found.

    Attributes:
      loss: mean over all networks of the meta-batch of cross-entropy and, if there is one, penalty on norms.
      accuracy: mean top-1 over all networks and images, in [0, 1].
      gradient_norm: global norm of the raw gradient.
      finite: whether the update was made; it is left out if loss or gradient are not finite.
      local_losses: place in the meta-batch and loss of the networks that this process ran.
      ghn_seconds, nets_seconds, seconds: wall-clock of the prediction and its backward pass, of the networks, of all.
    """

    loss: float
    accuracy: float
    gradient_norm: float
    finite: bool
    local_losses: dict[int, float]
    ghn_seconds: float
    nets_seconds: float
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class _Share:
    """Of one device: sums over its networks, on that device, and the parts of the time."""

    sums: dict[str, Any]
    losses: dict[int, jax.Array]
    ghn_seconds: float
    nets_seconds: float


class MetaStep:
    """Makes steps on a mesh; compiled programs are kept between them.

    Args:
      ghn: the hypernetwork.
      config: of the optimiser.
      mesh: devices that share the architectures of a meta-batch.
      params: weights of the hypernetwork, or anything of their shapes.
      dtype: type that networks compute in (the GHN computes in float32).
      threads: networks that one device runs side by side.
      timed: whether to wait after each part, so that the parts of the time are true; costs some overlap.
    """

    def __init__(
        self,
        ghn: GHN,
        config: OptimiserConfig,
        mesh: Mesh,
        params: Any,
        *,
        dtype: Any = jnp.float32,
        threads: int = 2,
        timed: bool = False,
    ) -> None:
        self.ghn, self.config, self.mesh = ghn, config, mesh
        self._dtype, self._threads, self._timed = dtype, threads, timed
        places = devices.local_places(mesh)
        self._runners = {place: Runner(device=_named(mesh, place)) for place in places}
        self._warm_ups = {
            place: PredictionWarmUp(ghn, params, mesh.devices.flat[place], _named(mesh, place)) for place in places
        }
        self._penalised: set[tuple[int, ...]] = set()
        everywhere = NamedSharding(mesh, PartitionSpec())
        self._update = jax.jit(
            functools.partial(_combine, config=config), donate_argnums=0, out_shardings=(everywhere, everywhere)
        )

    @property
    def runners(self) -> list[Runner]:
        """One for each device of this process."""
        return list(self._runners.values())

    def compile_metrics(self) -> dict[str, float]:
        """What the process compiled and holds: the fields of `CompileReport`, as ``layers_compiled``, ..."""
        report = shared_programs().report()
        # Mappings are not of layers alone: runs.environment measures them.
        return {f"layers_{name}": value for name, value in dataclasses.asdict(report).items() if name != "mappings"}

    def warm(
        self, batch: MetaBatch, image_shape: tuple[int, ...], tell: Callable[[int, int], None] | None = None
    ) -> None:
        """Compiles ahead what this process needs for a meta-batch and lacks; safe in background threads.

        Layers are compiled without being run. The hypernetwork's own programs are run on zero weights and cotangents
        when a kind of tensor or a number of nodes comes up that none of the meta-batches before had.

        `tell` is called with how many layers that were missing are compiled, and how many there are (for one device).
        """
        for place, runner in self._runners.items():
            part = self._shares(batch)[place]
            if not part:
                continue
            self._warm_ups[place].warm([batch.graphs[i] for i in part])
            if self.config.norm_penalty:
                shapes = {spec.shape for i in part for spec in batch.graphs[i].params} - self._penalised
                warm_norm_penalty(shapes, jax.device_put(np.float32(0), self.mesh.devices.flat[place]))
                self._penalised |= shapes
            runner.warm([network_plan(batch.args[i]) for i in part], image_shape, dtype=self._dtype, tell=tell)

    def __call__(
        self, state: TrainState, batch: MetaBatch, images: Batch, rate: float, key: jax.Array
    ) -> tuple[TrainState, StepReport]:
        """One update.

        Args:
          state: replicated over the mesh; its buffers are given up.
          batch: the architectures, the same on every process.
          images: normalised images float32 (B, H, W, 3) and labels (B,), the same on every process.
          rate: learning rate.
          key: for dropout; architecture i of the meta-batch uses ``fold_in(key, i)``.
        """
        start = time.perf_counter()
        parts = self._shares(batch)

        def run(place: int) -> _Share:
            return self._run_share(place, parts[place], state, batch, images=images, key=key)

        found = side_by_side(run, list(self._runners), threads=len(self._runners))
        count = len(batch.graphs)
        sums = devices.stack([share.sums for share in found], self.mesh)
        new, (report, loss, correct) = self._update(state, sums, np.float32(count), np.float32(rate))
        losses = {i: float(own) for share in found for i, own in share.losses.items()}
        seconds = time.perf_counter
        result = StepReport(
            loss=float(loss),
            accuracy=float(correct) / len(images[1]),
            gradient_norm=float(report.gradient_norm),
            finite=bool(report.finite),
            local_losses=losses,
            ghn_seconds=max(share.ghn_seconds for share in found),
            nets_seconds=max(share.nets_seconds for share in found),
            seconds=seconds() - start,
        )
        return new, result

    def _shares(self, batch: MetaBatch) -> list[list[int]]:
        return shares([graph.num_nodes for graph in batch.graphs], self.mesh.size)

    def _run_share(
        self, place: int, part: list[int], state: TrainState, batch: MetaBatch, *, images: Batch, key: jax.Array
    ) -> _Share:
        """Sums of gradient, loss and accuracy over the networks of one device."""
        device = self.mesh.devices.flat[place]
        runner = self._runners[place]
        params = devices.copy_on(state.params, device)
        if not part:
            zero = jnp.zeros((), device=device)
            sums = {"gradient": zeros_like(params, device), "loss": zero, "correct": zero}
            return _Share(sums, {}, 0.0, 0.0)
        pixels, labels = jax.device_put(images, device)
        clock = _Clock(self._timed)
        prepared = self._warm_ups[place].take([batch.graphs[i] for i in part])
        predicted, vjp = predict_with_vjp(self.ghn, {"params": params}, prepared, threads=self._threads)
        clock.lap("ghn", predicted)

        def one(item: tuple[int, Any]) -> tuple[jax.Array, jax.Array, dict]:
            number, own = item
            rng = jax.device_put(jax.random.fold_in(key, number), device)
            return runner.loss_and_grads(
                network_plan(batch.args[number]),
                own,
                pixels,
                labels,
                label_smoothing=self.config.label_smoothing,
                rng=rng,
                train=True,
                dtype=self._dtype,
            )

        items = list(zip(part, predicted, strict=True))
        if self._threads == 1 or len(items) == 1:
            results = [one(item) for item in items]
        else:
            # Long ones first, or the last one may run alone for long.
            work = {number: product_count(batch.args[number]) for number in part}
            with ThreadPoolExecutor(self._threads) as pool:
                waiting = {item[0]: pool.submit(one, item) for item in sorted(items, key=lambda item: -work[item[0]])}
            results = [waiting[number].result() for number in part]
        clock.lap("nets", results)
        cotangents, penalty = [own for _, _, own in results], jax.device_put(np.float32(0), device)
        if self.config.norm_penalty:
            for place_in_part, own in enumerate(predicted):
                cotangents[place_in_part], penalty = add_norm_penalty(
                    cotangents[place_in_part], own, self.config.norm_penalty, penalty
                )
        del predicted
        gradient = vjp(cotangents)["params"]
        losses = tuple(loss for loss, _, _ in results)
        total, correct = _sum_results(losses, tuple(logits for _, logits, _ in results), labels, penalty)
        clock.lap("ghn", gradient)
        sums = {"gradient": gradient, "loss": total, "correct": correct}
        own_losses = dict(zip(part, losses, strict=True))
        return _Share(jax.device_put(sums, device), own_losses, clock.parts["ghn"], clock.parts["nets"])


class _Clock:
    """Time of the parts; waits for their arrays if `waits`."""

    def __init__(self, waits: bool) -> None:
        self._waits, self._last = waits, time.perf_counter()
        self.parts = {"ghn": 0.0, "nets": 0.0}

    def lap(self, part: str, arrays: Any) -> None:
        if self._waits:
            jax.block_until_ready(arrays)
        now = time.perf_counter()
        self.parts[part] += now - self._last
        self._last = now


def _named(mesh: Mesh, place: int) -> devices.Device | None:
    """The device, or None where it is the only one: programs then need no placement of their own."""
    return None if mesh.size == 1 and len(jax.local_devices()) == 1 else mesh.devices.flat[place]


@jax.jit
def _sum_results(
    losses: tuple[jax.Array, ...], logits: tuple[jax.Array, ...], labels: jax.Array, penalty: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sum of losses and penalty, and number of images classified correctly, over networks with logits (B, K)."""
    correct = sum((out.argmax(axis=1) == labels).sum() for out in logits)
    return jnp.stack(losses).sum() + penalty, jnp.asarray(correct, jnp.float32)


def _combine(
    state: TrainState, sums: dict[str, Any], count: jax.Array, rate: jax.Array, config: OptimiserConfig
) -> tuple[TrainState, tuple[UpdateReport, jax.Array, jax.Array]]:
    """Means over the meta-batch from sums with a leading axis of devices, and the update."""
    mean = jax.tree.map(lambda leaf: leaf.sum(axis=0) / count, sums)
    new, report = update(state, mean["gradient"], mean["loss"], rate, config)
    return new, (report, mean["loss"], mean["correct"])

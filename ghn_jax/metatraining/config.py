"""Configuration of a meta-training run."""

import dataclasses
import itertools
import pathlib
import re
from typing import Literal

from ghn_jax.deepnets.sources import ArchitectureConfig, Task
from ghn_jax.fields import COUNT, COUNT_OR_NONE, IMAGE_SIZE, SEED, WORKERS, Range, check_fields, refuse_idle
from ghn_jax.hypernet import GHNConfig
from ghn_jax.images.records import BadImages
from ghn_jax.metatraining.optimisation import OptimiserConfig

Preset = Literal["ghn2", "ghn1", "mlp", "demo", "ghn3-t", "ghn3-tiny"]

_OF_IMAGES = {
    "image_size": IMAGE_SIZE,
    "small_sizes": IMAGE_SIZE,
    "small_until": Range(0, 1, whole=False, open=True, below=True),
    "batch_size": Range(1, 1_000_000),
    "images_per_class": COUNT,
    "image_workers": WORKERS,
}
_OF_RUN = {
    "seed": SEED,
    "minutes": Range(0, whole=False, open=True),
    "checkpoint_minutes": Range(0, whole=False),
    "keep_last": COUNT,
    "validate_every": COUNT,
    "validation_architectures": COUNT_OR_NONE,
    "validation_images": COUNT,
    "test_architectures": COUNT_OR_NONE,
    "test_images": COUNT,
    "threads": Range(1, 1_024),
    "compile_threads": WORKERS,
    "compile_ahead": Range(0, 1_000),
    "held_layers": COUNT,
    "num_processes": Range(1, 1_000_000),
    "process_id": Range(0, 1_000_000, below=True),
}
_CLUSTER = ("coordinator", "num_processes", "process_id")


@dataclasses.dataclass(frozen=True, slots=True)
class ImageConfig:
    """Images that networks are trained on.

    Attributes:
      dataset: digits (embedded), any tensorflow-datasets image classification set (cifar10, cifar100,
        imagenet2012, ..) or folder:PATH with PATH/train/CLASS/* and PATH/val/CLASS/*.
      data_dir: folder of prepared tensorflow-datasets sets; default ~/tensorflow_datasets.
      image_size: height and width to resize to; default: the set's own.
      small_sizes: image sizes that training begins with, in order, before it goes on to `image_size`.
      small_until: for each of them, the share of all updates after which the next size follows.
      batch_size: images B, shared by all networks of a meta-batch.
      images_per_class: train on so many images of each class only (few-shot); default: all.
      few_shot: which ones: random, drawn with the run's seed, or the first of each class.
      image_workers: decoding processes of sets that do not fit in memory; default: one per core.
      bad_images: pictures that cannot be read: refuse names them and ends, skip leaves them out and counts
        them.
    """

    dataset: str = "digits"
    data_dir: str | None = None
    image_size: int | None = None
    small_sizes: tuple[int, ...] = ()
    small_until: tuple[float, ...] = ()
    batch_size: int = 64
    images_per_class: int | None = None
    few_shot: Literal["random", "first"] = "random"
    image_workers: int | None = None
    bad_images: BadImages = "refuse"

    def __post_init__(self) -> None:
        check_fields(self, _OF_IMAGES)
        if not self.dataset:
            raise ValueError("dataset must name an image set, got ''")
        if len(self.small_sizes) != len(self.small_until):
            raise ValueError(
                f"small_until must have one share for each of small_sizes {self.small_sizes}, got {self.small_until}"
            )
        if any(later <= earlier for earlier, later in itertools.pairwise(self.small_until)):
            raise ValueError(f"small_until must rise from share to share, got {self.small_until}")
        if self.images_per_class is None:
            refuse_idle(self, ("few_shot",), "without images_per_class")
        if self.dataset == "digits" or self.dataset.startswith("folder:"):
            refuse_idle(self, ("data_dir",), f"with dataset {self.dataset!r}, which is no set of tensorflow-datasets")


@dataclasses.dataclass(frozen=True, slots=True)
class RunConfig:
    """Where a run lives, how often it reports, and what it runs on.

    Attributes:
      run_dir: folder of checkpoints, metrics and pictures; a run that is there already is resumed. Default:
        runs/PRESET-DATASET-SEED.
      seed: of everything.
      start_from: hypernetwork whose weights the run begins with: a run's folder, or anything that `load_ghn` takes; of
        another number of classes, what decodes classifiers is new. Default: random weights.
      minutes: wall-clock after which the run saves and ends; default: no limit.
      checkpoint_minutes: between checkpoints.
      keep_last: checkpoints kept besides the best.
      validate_every: updates between validations; default: once per epoch.
      validation_architectures: unseen architectures of a validation.
      validation_images: images of a validation.
      test_architectures: unseen architectures of the final evaluation; 0 leaves it out.
      test_images: images of the final evaluation; default: all.
      dtype: type that networks compute in; the hypernetwork computes in float32.
      threads: networks that one device runs side by side; on a CPU each gets its part of the cores.
      compile_threads: threads that compile layers of the next meta-batches ahead; 0 compiles when needed.
      compile_ahead: meta-batches to look ahead.
      held_layers: compiled layers that the process holds at most, at about 2 MB each; those not used for longest are
        read back when they are wanted again, which takes 50 to 100 ms. Default: a fifteenth of the machine's memory.
      compilation_cache: folder of compiled programs, so that a second run starts warm; default: that of
        `networks.enable_compilation_cache`. "" keeps nothing.
      distributed: join several processes by `jax.distributed.initialize` (cluster variables, or the three below).
      coordinator: HOST:PORT of process 0.
      num_processes: of the run.
      process_id: of this process.
    """

    run_dir: pathlib.Path | None = None
    seed: int = 0
    start_from: str | None = None
    minutes: float | None = None
    checkpoint_minutes: float = 10.0
    keep_last: int = 2
    validate_every: int | None = None
    validation_architectures: int = 8
    validation_images: int = 512
    test_architectures: int = 50
    test_images: int | None = 2_000
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int = 2
    compile_threads: int = 2
    compile_ahead: int = 2
    held_layers: int | None = None
    compilation_cache: str | None = None
    distributed: bool = False
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, _OF_RUN)
        if not self.distributed:
            refuse_idle(self, _CLUSTER, "without distributed")
        missing = [name for name in _CLUSTER if getattr(self, name) is None]
        if 0 < len(missing) < len(_CLUSTER):
            raise ValueError(f"{missing[0]} is missing: give {', '.join(_CLUSTER)}, or none of them")
        if self.coordinator is not None and not re.fullmatch(r"[^\s:]+:\d{1,5}|\[[^\s]+\]:\d{1,5}", self.coordinator):
            raise ValueError(f"coordinator must be HOST:PORT, got {self.coordinator!r}")
        if self.process_id is not None and self.num_processes is not None and self.process_id >= self.num_processes:
            raise ValueError(f"process_id must be below num_processes {self.num_processes}, got {self.process_id}")


@dataclasses.dataclass(frozen=True, slots=True)
class TrainConfig:
    """Meta-training of a graph hypernetwork.

    Attributes:
      preset: defaults of everything below: ghn2, ghn1 and mlp as in the paper, ghn3-t as GHN-3's (docs/method.md,
        section 17), demo and ghn3-tiny learn in minutes on a laptop.
      images: images.
      architectures: architectures.
      ghn: the hypernetwork; num_classes is that of the images.
      optimiser: updates and their schedule.
      run: the run.
    """

    preset: Preset = "ghn2"
    images: ImageConfig = dataclasses.field(default_factory=ImageConfig)
    architectures: ArchitectureConfig = dataclasses.field(default_factory=ArchitectureConfig)
    ghn: GHNConfig = dataclasses.field(default_factory=GHNConfig)
    optimiser: OptimiserConfig = dataclasses.field(default_factory=OptimiserConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        check_fields(self, {})

    @property
    def task(self) -> Task:
        """Classes and image size, of a resolved configuration."""
        if self.images.image_size is None:
            raise ValueError("the image size is known once the images are loaded: resolve the configuration first")
        return Task(self.ghn.num_classes, self.images.image_size)

    @property
    def run_dir(self) -> pathlib.Path:
        """Folder of the run."""
        if self.run.run_dir is not None:
            return self.run.run_dir
        name = self.images.dataset.removeprefix("folder:").replace("/", "_")
        return pathlib.Path("runs") / f"{self.preset}-{name}-{self.run.seed}"

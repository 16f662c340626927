"""Configurations: presets, command line, files, what a resumed run may change."""

import dataclasses
import pathlib

import numpy as np
import pytest

from ghn_jax.hypernet import GHNConfig
from ghn_jax.images import ImageSet
from ghn_jax.metatraining.command import parse_config
from ghn_jax.metatraining.config import TrainConfig
from ghn_jax.metatraining.config_files import check_resumable, load_config, save_config
from ghn_jax.metatraining.presets import PRESETS
from ghn_jax.metatraining.starting import resolve


def test_the_default_is_ghn_2_of_the_paper() -> None:
    config = parse_config([], "")
    assert config == PRESETS["ghn2"] == TrainConfig()
    assert (config.images.batch_size, config.architectures.meta_batch, config.architectures.max_nodes) == (64, 8, 2200)
    optimiser = config.optimiser
    assert (optimiser.epochs, optimiser.milestones, optimiser.learning_rate) == (300, (200, 250), 1e-3)
    assert (optimiser.l2, optimiser.clip) == (1e-5, 5)


def test_presets_are_those_of_the_paper() -> None:
    assert PRESETS["ghn1"].ghn == GHNConfig.preset("ghn1")
    assert PRESETS["ghn1"].architectures.meta_batch == 1
    assert PRESETS["mlp"].ghn == GHNConfig.preset("mlp")
    assert PRESETS["demo"].images.dataset == "digits"


def test_presets_of_ghn3_have_its_recipe() -> None:
    config, tiny = parse_config(["--preset=ghn3-t"], ""), parse_config(["--preset=ghn3-tiny"], "")
    assert config.ghn == GHNConfig.preset("ghn3-t")
    assert (config.images.batch_size, config.architectures.meta_batch, config.optimiser.epochs) == (64, 8, 300)
    for optimiser in (config.optimiser, tiny.optimiser):
        assert (optimiser.learning_rate, optimiser.weight_decay, optimiser.l2) == (4e-4, 1e-2, 0)
        assert (optimiser.schedule, optimiser.norm_penalty, optimiser.clip) == ("cosine-warmup", 3e-5, 5)
    assert (tiny.architectures, tiny.images, tiny.run) == tuple(
        getattr(PRESETS["demo"], part) for part in ("architectures", "images", "run")
    )
    large = parse_config(["--preset=ghn3-t", "--dataset=imagenet2012"], "")
    assert large.ghn == GHNConfig.preset("ghn3-t", "imagenet").replace(num_classes=10)
    optimiser = large.optimiser
    assert (large.images.batch_size, optimiser.epochs, optimiser.label_smoothing) == (128, 75, 0.1)


def test_options_change_the_preset_and_need_no_prefix() -> None:
    config = parse_config(
        ["--preset=demo", "--dataset=cifar10", "--data_dir=here", "--hid=16", "--max-shape", *"8833"], ""
    )
    assert config.preset == "demo"
    assert (config.images.dataset, config.images.data_dir) == ("cifar10", "here")
    assert config.ghn == PRESETS["demo"].ghn.replace(hid=16, max_shape=(8, 8, 3, 3))
    assert config.optimiser == PRESETS["demo"].optimiser


def test_imagenet_changes_the_defaults_but_not_what_is_asked_for() -> None:
    config = parse_config(["--dataset=imagenet2012", "--batch-size=128"], "")
    assert config.images.batch_size == 128
    assert config.ghn.max_shape == (64, 64, 16, 16)
    assert (config.optimiser.epochs, config.optimiser.milestones, config.optimiser.label_smoothing) == (
        150,
        (100, 140),
        0.1,
    )


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_config(["--help"], "What this is.")
    text = capsys.readouterr().out
    for words in ("What this is.", "--dataset", "folder:PATH", "--meta-batch", "networks per update"):
        assert words in text


@pytest.mark.parametrize("preset", ["ghn2", "demo"])
def test_a_saved_configuration_is_read_back(preset: str, tmp_path: pathlib.Path) -> None:
    config = dataclasses.replace(
        parse_config([f"--preset={preset}", "--minutes=3", f"--run-dir={tmp_path}"], ""), preset=preset
    )
    save_config(config, tmp_path)
    assert load_config(tmp_path) == config
    with pytest.raises(ValueError, match="no folder of a run"):
        load_config(tmp_path / "none")


def test_a_damaged_configuration_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.json"
    options = [f"--run-dir={tmp_path}", "--minutes=3", "--architecture-file=there.hdf5"]
    config = parse_config(options, "")
    save_config(config, tmp_path)
    whole = path.read_text()
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    check_resumable(config)
    bad = (
        (whole[:-300], "Unterminated|Expecting"),
        ("[" * 100_000, "recursion"),
        ("[]", "must be an object"),
        (whole.replace('"seed"', '"sead"'), "has the unknown sead"),
        (whole.replace('"images":', '"pictures":'), "lacks images"),
        (whole.replace('"batch_size": 64', '"batch_size": true'), "batch_size must be int, got True"),
        (whole.replace('"hid": 32', '"hid": "32"'), "hid must be int"),
        (whole.replace('"epochs": 300', '"epochs": 0'), "epochs must be a whole number from 1 to"),
        (whole.replace("there.hdf5", "there.hdf5\udcff"), "codec can't"),
    )
    for text, words in bad:
        path.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(ValueError, match=words) as raised:
            check_resumable(config)
        assert str(raised.value).startswith(f"{path} is no configuration of a run")
    path.unlink()
    check_resumable(config)


def test_a_configuration_of_an_earlier_version_may_lack_a_field(tmp_path: pathlib.Path) -> None:
    config = parse_config([f"--run-dir={tmp_path}"], "")
    save_config(config, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"keep_last": 2,\n', ""))
    assert load_config(tmp_path) == config


def test_a_run_goes_on_only_as_what_it_was(tmp_path: pathlib.Path) -> None:
    config = parse_config([f"--run-dir={tmp_path}", "--seed=1"], "")
    check_resumable(config)
    save_config(config, tmp_path)
    check_resumable(parse_config([f"--run-dir={tmp_path}", "--seed=1", "--hid=16"], ""))  # nothing to go on with
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    check_resumable(parse_config([f"--run-dir={tmp_path}", "--seed=1", "--minutes=9", "--threads=1"], ""))
    with pytest.raises(ValueError, match=r"ghn\.hid was 32, now 16"):
        check_resumable(parse_config([f"--run-dir={tmp_path}", "--seed=1", "--hid=16"], ""))
    with pytest.raises(ValueError, match=r"run\.seed was 1, now 2"):
        check_resumable(parse_config([f"--run-dir={tmp_path}", "--seed=2"], ""))


@pytest.mark.parametrize(("option", "name"), [("--steps=900", "steps"), ("--epochs=500", "epochs")])
def test_a_run_may_become_longer_where_the_rates_made_stay(tmp_path: pathlib.Path, option: str, name: str) -> None:
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    options = [f"--run-dir={tmp_path}", "--steps=300", "--schedule=steps"]
    save_config(parse_config(options, ""), tmp_path)
    check_resumable(parse_config([*options, option], ""))
    save_config(parse_config([*options, "--schedule=cosine"], ""), tmp_path)
    with pytest.raises(ValueError, match=rf"optimiser\.{name} was .*rates or image sizes of the updates already made"):
        check_resumable(parse_config([*options, "--schedule=cosine", option], ""))
    with pytest.raises(ValueError, match=r"optimiser\.schedule was 'cosine', now 'steps'"):
        check_resumable(parse_config(options, ""))
    growing = [*options, "--image-size=32", "--small-sizes", "16", "--small-until", "0.5"]
    save_config(parse_config(growing, ""), tmp_path)
    check_resumable(parse_config(growing, ""))
    with pytest.raises(ValueError, match=rf"optimiser\.{name} was .*image sizes of the updates already made"):
        check_resumable(parse_config([*growing, option], ""))


def test_a_few_images_of_each_class_can_be_trained_on() -> None:
    options = ["--preset=demo", "--images-per-class=7", "--seed=3"]
    _, images = resolve(parse_config(options, ""))
    assert isinstance(images, ImageSet)
    np.testing.assert_array_equal(np.bincount(images.train.labels), np.full(10, 7))


def test_a_few_images_of_each_class_need_a_set_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ghn_jax.metatraining.starting.load_images", lambda *_: "a stream")
    with pytest.raises(ValueError, match="needs a set that fits in memory; 'imagenet2012' is streamed"):
        resolve(parse_config(["--dataset=imagenet2012", "--images-per-class=7"], ""))


def test_an_unresolved_configuration_has_no_task() -> None:
    with pytest.raises(ValueError, match="resolve the configuration"):
        _ = TrainConfig().task

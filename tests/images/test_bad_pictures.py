"""Folders with pictures that cannot be read: refused with every name, or skipped and counted."""

import io
import logging
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from ghn_jax.evaluation.accuracy import Score
from ghn_jax.evaluation.score_table import summary_table
from ghn_jax.images import ImageSet, ImageStream, load_images
from ghn_jax.images import load as load_module
from ghn_jax.images.folders import FolderRecords
from ghn_jax.images.records import picture
from ghn_jax.metatraining.command import parse_config
from ghn_jax.metatraining.starting import resolve

COUNT = 8


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GHN_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two classes, 8 training and 8 test pictures each, of one grey level each."""
    for part in ("train", "val"):
        for label, name in enumerate(("dark", "light")):
            place = tmp_path / "set" / part / name
            place.mkdir(parents=True)
            for i in range(COUNT):
                Image.new("RGB", (9, 9), (10 * i + 100 * label,) * 3).save(place / f"{i}.png")
    return tmp_path / "set"


def cut_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((40, 40), 90).save(buffer, "JPEG")
    return buffer.getvalue()[:-200]


def spoil(folder: pathlib.Path) -> list[str]:
    """Makes or spoils one file of each kind; returns their names in a message."""
    dark, light = folder / "train" / "dark", folder / "train" / "light"
    (dark / "3.png").write_bytes(b"")
    (dark / "x.jpg").mkdir()
    os.mkfifo(light / "pipe.png")
    (light / "nowhere.png").symlink_to(folder / "nothing.png")
    (light / "loop").symlink_to(light)
    return [
        f"{dark / '3.png'} is empty",
        f"{dark / 'x.jpg'} is no regular file",
        f"{light / 'loop'} is no regular file",
        f"{light / 'nowhere.png'} cannot be read (No such file or directory)",
        f"{light / 'pipe.png'} is no regular file",
    ]


def spoil_content(folder: pathlib.Path) -> list[str]:
    """Spoils the content of two files."""
    cut, text = folder / "train" / "light" / "2.png", folder / "val" / "dark" / "0.png"
    cut.write_bytes(cut_jpeg())
    text.write_text("no picture")
    return [f"{cut}: the JPEG file is cut", f"{text}: it is no picture of a known kind"]


def level(images: ImageSet, split: str) -> list[int]:
    return images.split(split).images[:, 4, 4, 0].tolist()


def test_all_irregular_files_are_named_at_once(folder: pathlib.Path) -> None:
    named = spoil(folder)
    with pytest.raises(ValueError, match="5 of 20 pictures cannot be read") as caught:
        load_images(f"folder:{folder}", 9)
    for name in (*named, "--bad-images=skip"):
        assert name in str(caught.value)


def test_all_damaged_files_of_a_set_in_memory_are_named_at_the_start(folder: pathlib.Path) -> None:
    cut, text = spoil_content(folder)
    with pytest.raises(ValueError, match="1 of 16 pictures cannot be read") as caught:
        load_images(f"folder:{folder}", 9)
    assert cut in str(caught.value)
    (folder / "train" / "light" / "2.png").unlink()
    with pytest.raises(ValueError, match="1 of 16 pictures cannot be read") as caught:
        load_images(f"folder:{folder}", 9)
    assert text in str(caught.value)


def test_skipped_pictures_are_named_in_the_log_and_counted(
    folder: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    named = [*spoil(folder), *spoil_content(folder)]
    with caplog.at_level(logging.WARNING, "ghn_jax"):
        images = load_images(f"folder:{folder}", 9, bad_images="skip")
    assert isinstance(images, ImageSet)
    assert images.skipped == 7
    for name in named:
        assert name in caplog.text
    assert "7 pictures that cannot be read are left out" in caplog.text
    assert level(images, "train") + level(images, "val") == [
        0,
        10,
        20,
        40,
        50,
        60,
        100,
        110,
        130,
        140,
        150,
        160,
        70,
        170,
    ]
    assert level(images, "test") == [*range(10, 80, 10), *range(100, 180, 10)]
    assert images.test.labels.tolist() == [0] * 7 + [1] * 8
    caplog.clear()
    again = load_images(f"folder:{folder}", 9, bad_images="skip")  # from the cache
    assert again.skipped == 7
    assert "7 pictures that cannot be read are left out" in caplog.text
    with pytest.raises(ValueError, match=r"3\.png is empty"):
        load_images(f"folder:{folder}", 9)


def test_a_whole_folder_is_the_same_set_with_and_without_skipping(folder: pathlib.Path) -> None:
    one, other = (load_images(f"folder:{folder}", 9, bad_images=rule) for rule in ("refuse", "skip"))
    assert isinstance(one, ImageSet)
    assert isinstance(other, ImageSet)
    assert other.skipped == 0
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(one.split(split).images, other.split(split).images)


def test_many_bad_pictures_are_counted_and_the_first_named(folder: pathlib.Path) -> None:
    for i in range(30):
        (folder / "val" / "light" / f"more{i:02}.png").touch()
    with pytest.raises(ValueError, match=r"30 of 46 .*more00\.png.*more09\.png is empty; and 20 more\. ") as caught:
        load_images(f"folder:{folder}", 9)
    assert "more10" not in str(caught.value)


def test_a_class_without_a_readable_picture_is_refused(folder: pathlib.Path) -> None:
    for i in range(COUNT):
        (folder / "val" / "light" / f"{i}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="light holds no pictures that can be read"):
        load_images(f"folder:{folder}", 9, bad_images="skip")


def test_a_file_that_cannot_be_opened_is_named(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: pathlib.Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    records = FolderRecords.scan(folder / "train", ["dark", "light"])
    monkeypatch.setattr(pathlib.Path, "read_bytes", refuse)
    with pytest.raises(ValueError, match=r"dark.2\.png cannot be read .*Permission denied"):
        picture(records, 2)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match=r"16 of 16 .*dark.0\.png cannot be read \(no permission\)"):
        FolderRecords.scan(folder / "train", ["dark", "light"])


def test_a_file_that_is_too_large_is_named_before_it_is_read(folder: pathlib.Path) -> None:
    with (folder / "val" / "light" / "0.png").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match=r"light.0\.png has 1,099,511,627,776 bytes, more than"):
        load_images(f"folder:{folder}", 9)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_names_a_damaged_picture_when_it_comes_to_it(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(load_module, "IN_MEMORY_BYTES", 100)
    spoil_content(folder)
    images = load_images(f"folder:{folder}", 9, workers=workers)
    assert isinstance(images, ImageStream)
    with pytest.raises(ValueError, match=r"light.2\.png: the JPEG file is cut"):
        for _, _ in zip(range(14), images.train_batches(1, seed=0), strict=False):
            pass


def test_a_stream_without_its_bad_pictures(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "IN_MEMORY_BYTES", 100)
    spoil(folder)
    spoil_content(folder)
    for _ in range(2):  # the second time from the cache
        images = load_images(f"folder:{folder}", 9, workers=0, bad_images="skip")
        assert isinstance(images, ImageStream)
        assert images.skipped == 7
        assert (len(images.train_rows), len(images.val_rows), len(images.test)) == (12, 2, 15)
        levels = [int(pixels[0, 4, 4, 0]) for pixels, _ in images.eval_batches("test", 1)]
        assert sorted(levels) == [*range(10, 80, 10), *range(100, 180, 10)]


def test_commands_have_the_option_and_tables_the_count(folder: pathlib.Path) -> None:
    spoil_content(folder)
    command = [f"--dataset=folder:{folder}", "--image-size=9"]
    with pytest.raises(ValueError, match="the JPEG file is cut"):
        resolve(parse_config(command, ""))
    config, images = resolve(parse_config([*command, "--bad-images=skip"], ""))
    assert (config.images.bad_images, images.skipped) == ("skip", 2)
    score = Score("net", 3, 100, 0.5, 0.9, None, None, 0.1)
    assert "2 pictures that cannot be read were left out" in summary_table([score], 0.5, skipped=images.skipped)
    assert "pictures" not in summary_table([score], 0.5)


def test_rules_that_do_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no bad images to be skipped in 'digits'"):
        load_images("digits", bad_images="skip")
    with pytest.raises(ValueError, match="got 'ignore'"):
        load_images(bad_images="ignore")  # pyright: ignore[reportArgumentType]

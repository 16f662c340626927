"""The reader of plain HDF5 files beside the format's own library."""

import pathlib
from typing import Any

import h5py
import numpy as np
import pytest

from ghn_jax.deepnets.files.hdf5 import Hdf5File

MOST = 10**6


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "some.hdf5"


def write(path: pathlib.Path, libver: Any = "earliest", **datasets: dict[str, Any]) -> None:
    with h5py.File(path, "w", libver=libver) as file:
        for name, arguments in datasets.items():
            file.create_dataset(name, **arguments)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("shape", "storage"),
    [
        ((1, 1), {}),
        ((66, 3), {}),
        ((66, 3), {"chunks": (66, 3)}),
        ((66, 31), {"chunks": (66, 31), "compression": "gzip"}),
        ((66, 31), {"chunks": (66, 31), "compression": "gzip", "compression_opts": 9}),
        ((67, 31), {"chunks": (20, 13), "compression": "gzip"}),  # overhanging
        ((203, 301), {"chunks": (7, 11)}),  # 812 chunks: a tree of two levels
        ((300, 300), {"compression": "gzip"}),
        ((20, 20), {"maxshape": (None, 20), "chunks": (20, 20)}),
    ],
)
def test_values_are_those_of_the_library(path: pathlib.Path, dtype: type, shape: tuple[int, int], storage: dict):
    values = np.random.default_rng(0).integers(np.iinfo(dtype).max, size=shape, dtype=dtype, endpoint=True)
    write(path, some={"data": values, **storage})
    with Hdf5File(path) as file:
        found = file.array("some", dtype, 2, MOST)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, values)


def test_every_member_of_large_groups_is_found(path: pathlib.Path):
    """A group of 5,000 members has a B-tree of three levels."""
    order = np.random.default_rng(0).permutation(5_000)
    with h5py.File(path, "w", libver="earliest") as file:
        group = file.create_group("many")
        for number in order.tolist():
            group.create_dataset(f"{number}", data=np.array([number], np.uint16))
        group.attrs["title"] = "text of any length"
        for number in range(40):  # they do not fit into the header's first block
            group.attrs[f"attribute {number}"] = np.arange(20)
        file["one/two/three/four"] = np.array([4], np.uint16)
    with Hdf5File(path) as file:
        assert [int(file.array(f"many/{number}", np.uint16, 1, 1)[0]) for number in range(5_000)] == list(range(5_000))
        assert file.array("one/two/three/four", np.uint16, 1, 1).tolist() == [4]
        for name in ("5000", "", "00", "4999 ", "\N{LATIN SMALL LETTER U WITH DIAERESIS}"):
            with pytest.raises(ValueError, match=rf"some\.hdf5: 'many/{name}' is missing"):
                file.array(f"many/{name}", np.uint16, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": np.zeros((3, 3), np.uint16)}, "is not of type uint8"),
        ({"data": np.zeros((3, 3), np.int8)}, "is not of type uint8"),
        ({"data": np.zeros((3, 3), np.float32)}, "is not of type uint8"),
        ({"data": np.zeros((3, 3, 3), np.uint8)}, "has not 2 axes"),
        ({"data": np.uint8(3)}, "has not 2 axes"),
        ({"data": np.zeros((11, 10), np.uint8)}, r"has the shape \(11, 10\), more than the 100 values that are read"),
        ({"shape": (3, 3), "dtype": np.uint8}, r"has the shape \(3, 3\) and 0 bytes"),
        ({"shape": (3, 3), "dtype": np.uint8, "chunks": (2, 2)}, "refers to bytes behind the end|damaged chunks"),
        (
            {"data": np.zeros((3, 3), np.uint8), "chunks": (3, 3), "fletcher32": True},
            "is not plain or gzipped",
        ),
        (
            {"data": np.zeros((3, 3), np.uint8), "chunks": (3, 3), "compression": "lzf"},
            "is not plain or gzipped",
        ),
        ({"shape": (3, 3), "dtype": np.uint8, "external": "/etc/passwd"}, "has values kept in other files"),
    ],
)
def test_other_datasets_are_refused(path: pathlib.Path, arguments: dict[str, Any], message: str):
    write(path, some=arguments)
    with Hdf5File(path) as file, pytest.raises(ValueError, match=rf"some\.hdf5: 'some' {message}"):
        file.array("some", np.uint8, 2, 100)


def test_links_are_refused(path: pathlib.Path):
    write(path, some={"data": np.zeros((3, 3), np.uint8)})
    with h5py.File(path, "r+", libver="earliest") as file:
        file["soft"] = h5py.SoftLink("/some")
        file.create_group("other")["outside"] = h5py.ExternalLink("other.hdf5", "/some")
        file.create_group("group")
    with Hdf5File(path) as file:
        for place, message in (
            ("soft", r"is behind a link \('soft'\)"),
            ("other/outside", "has links of a newer kind"),
            ("group", "is no dataset"),
            ("some/more", "is missing: 'some' is no group"),
        ):
            with pytest.raises(ValueError, match=f"'{place}' {message}"):
                file.array(place, np.uint8, 2, 100)


@pytest.mark.parametrize("libver", ["v108", "latest"])
def test_newer_files_are_refused(path: pathlib.Path, libver: str):
    write(path, libver, some={"data": np.zeros((3, 3), np.uint8)})
    with pytest.raises(
        ValueError, match=r"some\.hdf5: not a complete HDF5 file \(its first block is not of the version"
    ):
        Hdf5File(path)


def test_cut_files_are_refused(path: pathlib.Path):
    write(path, some={"data": np.zeros((30, 30), np.uint8)})
    whole = path.read_bytes()
    for length, message in (
        (0, "refers to bytes behind|is cut off"),
        (50, "is cut off"),
        (len(whole) - 1, "it should have"),
    ):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"some\.hdf5: not a complete HDF5 file \(.*({message})"):
            Hdf5File(path)
    path.write_bytes(whole + b"more")
    with Hdf5File(path) as file:
        assert not file.array("some", np.uint8, 2, MOST).any()

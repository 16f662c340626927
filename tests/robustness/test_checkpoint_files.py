"""Checkpoints of hypernetworks that are damaged or hostile: as good as undamaged, or a ValueError with their name."""

import json
import os
import pathlib
import shutil
import struct
import warnings
import zipfile
from typing import Any

import jax
import numpy as np
import pytest
from robustness.damage import damaged_copies
from robustness.guard import counts, faults, read_all
from small_graphs import TINY

from ghn_jax.hypernet import GHN, export_release_checkpoint, init_ghn, load_ghn, save_checkpoint, save_file

CONFIG = TINY.replace(max_shape=(4, 4, 2, 2), hid=4, num_classes=3)
FORMATS = ("release.pt", "folder", "file.npz")


def read(path: pathlib.Path) -> Any:
    loaded = load_ghn(path)
    return loaded.config, jax.tree.map(np.asarray, loaded.variables)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with one hypernetwork in every format."""
    folder = tmp_path_factory.mktemp("good")
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_ghn(GHN(CONFIG), jax.random.key(0)))
    variables = jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), shapes)
    for name, save in zip(FORMATS, (export_release_checkpoint, save_checkpoint, save_file), strict=True):
        save(folder / name, CONFIG, variables)
    return folder


def fields(file: pathlib.Path) -> list[range]:
    """Where sizes stand: the end of a zip with its list of members, and the first header."""
    size = file.stat().st_size if file.is_file() else 0
    return [range(64), range(max(0, size - 2000), size), range(max(0, size - 64), size)] if size else []


def check(good: pathlib.Path, into: pathlib.Path, count: int, seed: int) -> dict[str, int]:
    outcomes = read_all(read, good, damaged_copies(good, into, count, seed, fields(good)))
    assert faults(outcomes) == []
    return counts(outcomes)


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_noticed(name: str, good: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert check(good / name, tmp_path, 12, seed=1).get("refused", 0) > 0


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def laughs(levels: int) -> bytes:
    """Pushes a tuple that holds one twice that holds one twice ..: 60 levels are 10^18 values."""
    return b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (level, level, level + 1) for level in range(levels))


TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n("
PICKLES = {
    "nested tuple as a key": b"})" + b"\x85" * 1_300 + b"Ns.",
    "deeper tuple as a key": b"})" + b"\x85" * 200_000 + b"Ns.",
    "nested lists": b"]" * 200_000 + b"a" * 199_999 + b".",
    "memo index": b"}r" + struct.pack("<I", 10**7) + b".",
    "much memory for a text": b"}X" + struct.pack("<I", 2**31 - 1) + b".",
    "laughing value": b"}(" + text("state_dict") + b"}" + text("config") + laughs(60) + b"u.",
    "laughing key": b"}" + laughs(60) + b"Ns.",
    "laughing persistent id": laughs(60) + b"Q.",
    "laughing size": TENSOR + laughs(60) + b"tR.",
    "laughing argument": b"ccollections\nOrderedDict\n(" + laughs(60) + b"tR.",
    "many instructions": b"N0" * 10**6 + b".",
    "many strings": b"]" + (text("a" * 1_000) + b"a") * 90_000 + b".",
}
"""Programs that a file of a release may hold instead of weights."""


def rezip(
    source: pathlib.Path, into: pathlib.Path, method: int = zipfile.ZIP_STORED, again: str | None = None
) -> pathlib.Path:
    """The good file packed again, with one storage twice if it is named."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(into, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        if again is not None:
            new.writestr(f"release/data/{again}", bytes(100))
    return into


def test_hostile_release_files_are_refused(good: pathlib.Path, tmp_path: pathlib.Path) -> None:
    release = good / FORMATS[0]
    for name, program in PICKLES.items():
        with zipfile.ZipFile(tmp_path / f"{name}.pt", "w") as archive:
            archive.writestr("x/data.pkl", b"\x80\x02" + program)
    rezip(release, tmp_path / "deflated.pt", zipfile.ZIP_DEFLATED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name is there twice
        rezip(release, tmp_path / "one member twice.pt", again="0")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + b"N" * 10)
        archive.writestr("x/data/0", bytes(1 << 28))
    tensor = TENSOR + b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
    tensor += b"J" + struct.pack("<i", 10**6) + b"tQK\x00J" + struct.pack("<i", 10**6) + b"\x85K\x01\x85\x89NtR"
    many = b"".join(text(f"t{number}") + tensor for number in range(2_000))
    with zipfile.ZipFile(tmp_path / "one storage 2000 times.pt", "w") as archive:
        archive.writestr(
            "x/data.pkl", b"\x80\x02}(" + text("state_dict") + b"}(" + many + b"u" + text("config") + b"}u."
        )
        archive.writestr("x/data/0", bytes(4 * 10**6))
    with zipfile.ZipFile(tmp_path / "many members.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}.")
        for number in range(50_000):
            archive.writestr(f"x/data/{number:040}", b"")
    directory = bytearray(release.read_bytes())
    directory[-10:-6] = struct.pack("<I", 2**32 - 2)  # size of the list of members
    (tmp_path / "declared directory.pt").write_bytes(directory)
    os.mkfifo(tmp_path / "fifo.pt")
    (tmp_path / "link.pt").symlink_to(tmp_path / "fifo.pt")
    (tmp_path / "itself.pt").symlink_to(tmp_path / "itself.pt")
    outcomes = read_all(read, release, sorted(tmp_path.iterdir()))
    assert counts(outcomes) == {"refused": len(PICKLES) + 9}, faults(outcomes)


def npy(shape: str, data: bytes, dtype: str = "<f4") -> bytes:
    """An array of a .npz with a header of one's own."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def test_hostile_files_of_ours_are_refused(good: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with np.load(good / FORMATS[2]) as archive:
        names = [name for name in archive.files if name != "config.json"]
        arrays = {name: archive[name] for name in names}
        description = json.loads(str(archive["config.json"]))
    older = json.dumps({"format": "ghn_jax hypernetwork 2", "config": description["config"]})
    members = {f"{name}.npy": npy(str(array.shape), array.tobytes()) for name, array in arrays.items()}
    first = f"{names[0]}.npy"
    large = {"max_shape": (4096, 4096, 64, 64), "hid": 2048, "num_classes": 65_536}

    def write(name: str, more: dict[str, bytes], text: str = older) -> None:
        config = npy("()", text.encode("utf-32-le"), f"<U{len(text)}")
        with zipfile.ZipFile(tmp_path / f"{name}.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in {**members, "config.json.npy": config, **more}.items():
                archive.writestr(member, data)

    write("as good", {})
    write("bomb", {first: bytes(1 << 29)})
    write("bomb of an unknown name", {"x.npy": bytes(1 << 29)})
    write("declared", {first: npy("(1000000000000,)", b"")})
    write("negative", {first: npy("(-1, -4)", bytes(16))})
    write("nested header", {first: npy("(" * 4_000 + ")" * 4_000, b"")})
    write("objects", {first: npy("(1,)", bytes(8), "|O")})
    write("header that is no text", {first: b"\x93NUMPY\x01\x00\x08\x00" + bytes(8)})
    enlarged = {**json.loads(older), "config": {**description["config"], **large}}
    write("large configuration", {}, json.dumps(enlarged))
    write("nested configuration", {}, "[" * 200_000)
    write("long number", {}, '{"format": ' + "7" * 10_000 + "}")
    shutil.copy(good / FORMATS[0], tmp_path / "release under another name.npz")
    os.mkfifo(tmp_path / "fifo.npz")
    outcomes = read_all(read, good / FORMATS[2], sorted(tmp_path.iterdir()))
    assert {outcome.file.stem for outcome in outcomes if outcome.kind == "good"} == {
        "as good",
        "release under another name",
    }, faults(outcomes)
    assert counts(outcomes) == {"good": 2, "refused": 11}, faults(outcomes)


def rewrite_chunks(folder: pathlib.Path, chunks: int) -> None:
    """Says that the weights of LayerNorm are stored in pieces of another size."""
    import tensorstore

    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{folder}/weights/"}).result()
    described = json.loads(store.read(b"params.ln.bias/.zarray").result().value)
    store.write(b"params.ln.bias/.zarray", json.dumps({**described, "chunks": [chunks]}).encode()).result()


def test_hostile_folders_of_ours_are_refused(good: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def folder(name: str) -> pathlib.Path:
        return shutil.copytree(good / FORMATS[1], tmp_path / name)

    for chunks in (10**7, 10**10, 2**40):
        rewrite_chunks(folder(f"pieces of {chunks}"), chunks)
    for file in ("config.json", "weights/_METADATA", "weights/manifest.ocdbt"):
        fifo = folder(f"fifo for {file.replace('/', ' ')}") / file
        fifo.unlink()
        os.mkfifo(fifo)
    (folder("long config") / "config.json").write_text("[" * 10**7)
    shutil.rmtree(folder("no weights") / "weights")
    shutil.rmtree(folder("all of the machine") / "weights")
    (tmp_path / "all of the machine" / "weights").symlink_to("/")
    (tmp_path / "empty").mkdir()
    outcomes = read_all(read, good / FORMATS[1], sorted(tmp_path.iterdir()))
    assert counts(outcomes) == {"refused": 10}, faults(outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize(("name", "count"), [("release.pt", 200), ("file.npz", 150), ("folder", 200)])
def test_much_damage_is_noticed(name: str, count: int, seed: int, good: pathlib.Path, tmp_path: pathlib.Path) -> None:
    ended = check(good / name, tmp_path, count, seed)
    assert sum(ended.values()) == count
    print(name, seed, ended)

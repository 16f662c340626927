"""Dataset files made to harm: each of them is well formed in part, and misleads a reader that trusts it."""

import json
import os
import pathlib
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import h5py
import numpy as np

from ghn_jax.deepnets.files.meta_file import meta_path

ADJ = "train/0/adj"

Change = Callable[[h5py.File, pathlib.Path], None]
"""Changes an HDF5 file; also gets its path."""


def _distances(file: h5py.File) -> np.ndarray:
    found = file[ADJ]
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{ADJ} is no dataset")
    return found[()]


def _replaced(file: h5py.File, **storage: Any) -> h5py.Dataset:
    """The distances anew, stored as the arguments say."""
    values = _distances(file)
    del file[ADJ]
    return file.create_dataset(ADJ, data=values, **storage)


def _virtual(file: h5py.File, source: str, name: str = ADJ) -> None:
    shape = _distances(file).shape
    del file[ADJ]
    layout = h5py.VirtualLayout(shape, np.uint8)
    layout[:] = h5py.VirtualSource(source, name, shape)
    file.create_virtual_dataset(ADJ, layout)


def _virtual_of_itself(file: h5py.File, path: pathlib.Path) -> None:
    _virtual(file, ".")


def _virtual_ring(file: h5py.File, path: pathlib.Path) -> None:
    shape = _distances(file).shape
    _virtual(file, str(path), "train/1/adj")
    del file["train/1/adj"]
    layout = h5py.VirtualLayout(shape, np.uint8)
    layout[:] = h5py.VirtualSource(str(path), ADJ, shape)
    file.create_virtual_dataset("train/1/adj", layout)


def _pipe_behind_link(file: h5py.File, path: pathlib.Path) -> None:
    pipe = path.with_suffix(".pipe")
    os.mkfifo(pipe)
    del file[ADJ]
    file[ADJ] = h5py.ExternalLink(str(pipe), "/adj")


def _pipe_behind_virtual(file: h5py.File, path: pathlib.Path) -> None:
    pipe = path.with_suffix(".pipe")
    os.mkfifo(pipe)
    _virtual(file, str(pipe))


def _external_storage(file: h5py.File, path: pathlib.Path) -> None:
    shape = _distances(file).shape
    del file[ADJ]
    file.create_dataset(ADJ, shape, np.uint8, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def _link(place: str, link: Any) -> Change:
    def change(file: h5py.File, path: pathlib.Path) -> None:
        del file[place]
        file[place] = link

    return change


def _soft_ring(file: h5py.File, path: pathlib.Path) -> None:
    del file[ADJ]
    file[ADJ] = h5py.SoftLink("/train/0/other")
    file["train/0/other"] = h5py.SoftLink(f"/{ADJ}")


def _group_in_itself(file: h5py.File, path: pathlib.Path) -> None:
    del file[ADJ]
    file[ADJ] = file["train/0"]


def _other_type(dtype: Any) -> Change:
    def change(file: h5py.File, path: pathlib.Path) -> None:
        values = _distances(file)
        del file[ADJ]
        file.create_dataset(ADJ, data=values.astype(dtype))

    return change


def _huge(shape: tuple[int, ...], **storage: Any) -> Change:
    def change(file: h5py.File, path: pathlib.Path) -> None:
        del file[ADJ]
        file.create_dataset(ADJ, shape, np.uint8, **storage)

    return change


def _bomb(file: h5py.File, path: pathlib.Path) -> None:
    """A chunk that unpacks to much more than it may."""
    shape = _distances(file).shape
    stored = _replaced(file, chunks=shape, compression="gzip")
    stored.id.write_direct_chunk((0, 0), zlib.compress(bytes(2 * 10**9 // 16) * 4, 9))


def _stored_as(**storage: Any) -> Change:
    def change(file: h5py.File, path: pathlib.Path) -> None:
        _replaced(file, **storage)

    return change


def _dataset_for_group(file: h5py.File, path: pathlib.Path) -> None:
    del file["train/0"]
    file["train/0"] = np.zeros((3, 3), np.uint8)


def _attribute(file: h5py.File, path: pathlib.Path) -> None:
    file["train"].attrs["big"] = np.zeros(8_000, np.uint8)


HDF5: Mapping[str, Change] = {
    "virtual-of-itself": _virtual_of_itself,
    "virtual-ring": _virtual_ring,
    "virtual-of-passwd": lambda file, path: _virtual(file, "/etc/passwd"),
    "pipe-behind-link": _pipe_behind_link,
    "pipe-behind-virtual": _pipe_behind_virtual,
    "external-storage": _external_storage,
    "external-link-to-itself": lambda file, path: _link(ADJ, h5py.ExternalLink(str(path), f"/{ADJ}"))(file, path),
    "external-link-to-device": _link(ADJ, h5py.ExternalLink("/dev/zero", "/adj")),
    "external-split": _link("train", h5py.ExternalLink("other.hdf5", "/train")),
    "soft-link-to-itself": _link(ADJ, h5py.SoftLink(f"/{ADJ}")),
    "soft-ring": _soft_ring,
    "soft-link-to-root": _link("train/0", h5py.SoftLink("/")),
    "group-in-itself": _group_in_itself,
    "dataset-for-group": _dataset_for_group,
    "floats": _other_type(np.float64),
    "signed": _other_type(np.int8),
    "big-endian": _other_type(">u2"),
    "texts": _other_type("S5"),
    "compound": _other_type(np.dtype([("a", np.uint8)])),
    "never-written": _huge((66, 66)),
    "declared-10^12": _huge((10**6, 10**6), chunks=(1000, 1000)),
    "declared-10^13-in-a-row": _huge((1, 10**13), chunks=(1, 10**6)),
    "filled-10^10": _huge((10**5, 10**5), chunks=(1000, 1000), fillvalue=7, compression="gzip"),
    "tiny-chunks": _stored_as(chunks=(1, 1)),
    "bomb": _bomb,
    "shuffled": _stored_as(chunks=True, shuffle=True, compression="gzip"),
    "fletcher": _stored_as(chunks=True, fletcher32=True),
    "scale-offset": _stored_as(chunks=True, scaleoffset=0),
    "lzf": _stored_as(chunks=True, compression="lzf"),
    "several-chunks": _stored_as(chunks=(20, 13), compression="gzip"),
    "plain": _stored_as(),
    "large-attribute": _attribute,
}
"""Some of them are harmless and may be read."""


def write_hdf5(good: pathlib.Path, into: pathlib.Path) -> list[pathlib.Path]:
    """Every file of `HDF5`, files of the format's newer versions, and names that are no file."""
    into.mkdir()
    paths = []
    for name, change in HDF5.items():
        paths.append(into / f"{name}.hdf5")
        _copy(good, paths[-1])
        with h5py.File(paths[-1], "r+", libver="earliest") as file:
            try:
                change(file, paths[-1])
            except (OSError, ValueError, RuntimeError) as error:
                raise RuntimeError(f"{name}: {error}") from error
    for version in ("v108", "latest"):
        paths.append(into / f"version-{version}.hdf5")
        _copy(good, paths[-1])
        with h5py.File(good) as old, h5py.File(paths[-1], "w", libver=version) as new:
            for split in old:
                old.copy(split, new)
    for name, make in (("folder", pathlib.Path.mkdir), ("pipe", os.mkfifo), ("empty", pathlib.Path.touch)):
        paths.append(into / f"{name}.hdf5")
        _copy(good, paths[-1])
        paths[-1].unlink()
        make(paths[-1])
    for name, target in (("link-to-zero", "/dev/zero"), ("link-to-itself", str(into / "link-to-itself.hdf5"))):
        paths.append(into / f"{name}.hdf5")
        _copy(good, paths[-1])
        paths[-1].unlink()
        paths[-1].symlink_to(target)
    for name, place in (("tree-into-itself", b"TREE"), ("heap-of-everything", b"HEAP"), ("full-leaf", b"SNOD")):
        paths.append(into / f"{name}.hdf5")
        _copy(good, paths[-1])
        data = bytearray(paths[-1].read_bytes())
        at = data.find(place)
        while at >= 0:
            if place == b"TREE":  # the first child is the node itself, one level up
                data[at + 5] = 9
                data[at + 32 : at + 40] = struct.pack("<Q", at)
            elif place == b"HEAP":
                data[at + 8 : at + 16] = struct.pack("<Q", 2**63 - 1)
            else:
                data[at + 6 : at + 8] = struct.pack("<H", 2**16 - 1)
            at = data.find(place, at + 4)
        paths[-1].write_bytes(data)
    return paths


def _copy(good: pathlib.Path, path: pathlib.Path) -> None:
    shutil.copy(good, path)
    shutil.copy(meta_path(good), meta_path(path))


def _in_record(text: str) -> Callable[[str, dict[str, Any]], str]:
    """Text in place of the number of cells of the first network."""
    return lambda whole, meta: whole.replace(f'"n_cells": {meta["train"]["nets"][0]["n_cells"]}', text, 1)


def _set(**fields: Any) -> Callable[[str, dict[str, Any]], str]:
    def change(whole: str, meta: dict[str, Any]) -> str:
        meta["train"]["nets"][0].update(fields)
        return json.dumps(meta)

    return change


def _genotype(**fields: Any) -> Callable[[str, dict[str, Any]], str]:
    def change(whole: str, meta: dict[str, Any]) -> str:
        meta["train"]["nets"][0]["genotype"].update(fields)
        return json.dumps(meta)

    return change


def _in_split(**fields: Any) -> Callable[[str, dict[str, Any]], str]:
    def change(whole: str, meta: dict[str, Any]) -> str:
        meta["train"].update(fields)
        return json.dumps(meta)

    return change


JSON: Mapping[str, Callable[[str, dict[str, Any]], str]] = {
    "cells-10^6": _set(n_cells=10**6),
    "cells-100": _set(n_cells=100),
    "fc-layers-10^8": _set(fc_layers=10**8),
    "fc-dim-10^12": _set(fc_dim=10**12),
    "width-10^9": _set(C=10**9),
    "factor-10^9": _set(C_mult=10**9),
    "kernel-10^9": _set(ks=10**9),
    "nodes-10^9": _set(num_nodes=10**9),
    "huge-int": _in_record(f'"n_cells": {"9" * 4_000}'),
    "huge-int-10^6-digits": _in_record(f'"n_cells": {"9" * 10**6}'),
    "huge-exponent": _in_record('"n_cells": 1e999'),
    "float": _in_record('"n_cells": 5.0'),
    "nan": _in_record('"n_cells": NaN'),
    "infinity": _in_record('"comment": -Infinity, "n_cells": 5'),
    "twice": _in_record('"n_cells": 5, "n_cells": 6'),
    "bool-for-int": _set(ks=True),
    "text-for-bool": _set(preproc="no"),
    "int-for-bool": _set(stem_pool=1),
    "text-for-int": _set(ks="3"),
    "null-for-int": _set(n_cells=None),
    "list-for-int": _set(n_cells=[5]),
    "norm-list": _set(norm=["bnorm"]),
    "weights-text": _set(num_params="many"),
    "genotype-list": _set(genotype=[]),
    "genotype-10^5-steps": _genotype(normal=[["conv_3x3", 0]] * 10**5),
    "genotype-100-steps": _genotype(normal=[["conv_3x3", 0]] * 100),
    "concat-10^5": _genotype(normal_concat=[2] * 10**5),
    "concat-floats": _genotype(normal_concat=[2.0]),
    "op-unknown": _genotype(normal=[["__import__", 0], ["none", 1]]),
    "op-number": _genotype(normal=[[3, 0], [4, 1]]),
    "index-negative": _genotype(normal=[["conv_3x3", -1], ["conv_3x3", 0]]),
    "deep": _in_record(f'"comment": {"[" * 10**5}{"]" * 10**5}, "n_cells": 5'),
    "deep-objects": _in_record(f'"comment": {chr(123) + chr(34) + "a" + chr(34) + ":"}' * 2_000),
    "deep-beside": lambda whole, meta: '{"other": ' + "[" * 10**6 + "]" * 10**6 + ", " + whole[1:],
    "nets-object": _in_split(nets={}),
    "nets-numbers": _in_split(nets=[1, 2, 3]),
    "nets-10^6-numbers": _in_split(nets=[0] * 10**6),
    "nets-10^5-objects": _in_split(nets=[{}] * 10**5),
    "meta-list": _in_split(meta=[]),
    "names-list": _in_split(meta={"primitives_ext": [], "unique_op_names": {}}),
    "names-numbers": _in_split(meta={"primitives_ext": {"0": 0}, "unique_op_names": {"0": 0}}),
    "names-10^6": _in_split(
        meta={"primitives_ext": {str(i): "conv" for i in range(10**6)}, "unique_op_names": {"0": "conv"}}
    ),
    "split-list": lambda whole, meta: json.dumps({"train": []}),
    "split-twice": lambda whole, meta: f"{whole[:-1]}, {whole[1:]}",
    "keys-10^5": lambda whole, meta: json.dumps({**{f"s{i}": {} for i in range(10**5)}, **meta}),
    "null": lambda whole, meta: "null",
    "spaces-10^7": lambda whole, meta: " " * 10**7,
    "text-10^7": lambda whole, meta: f'"{"a" * 10**7}"',
    "number-10^7-digits": lambda whole, meta: "1" * 10**7,
    "garbage-behind": lambda whole, meta: f"{whole} {whole}",
    "indented": lambda whole, meta: json.dumps(meta, indent=2),
    "utf-16": lambda whole, meta: whole,
    "not-utf-8": _set(comment="place"),
    "surrogate": _in_record('"comment": "\\ud800", "n_cells": 5'),
}
"""Some of them are harmless and may be read."""


def write_json(good: pathlib.Path, into: pathlib.Path) -> list[pathlib.Path]:
    """Every file of `JSON`, and a pipe and a file of 3 GB of zeros."""
    into.mkdir()
    paths = []
    whole = meta_path(good).read_text()
    for name, change in JSON.items():
        paths.append(into / f"{name}_meta.json")
        data = change(whole, json.loads(whole)).encode("utf-16" if name == "utf-16" else "utf-8")
        paths[-1].write_bytes(data.replace(b"place", b"\xff\xfe") if name == "not-utf-8" else data)
    paths += [into / "pipe_meta.json", into / "zeros_meta.json"]
    os.mkfifo(paths[-2])
    with paths[-1].open("wb") as file:
        file.truncate(3 * 10**9)
    for path in paths:
        shutil.copy(good, path.with_name(path.name.replace("_meta.json", ".hdf5")))
    return paths

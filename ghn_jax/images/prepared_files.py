"""Files that describe a set of tensorflow-datasets, checked before its library reads them."""

import json
import pathlib
import stat
from collections.abc import Iterator
from typing import Any

MAX_METADATA_BYTES = 1 << 24
MAX_DEPTH = 50
_FEATURES = "tensorflow_datasets.core.features."
_LABELS_SUFFIX = ".labels.txt"


def check_metadata(folder: pathlib.Path) -> None:
    """Checks the descriptions of all versions and configurations of a prepared set; nothing is checked without a set.

    `tensorflow_datasets` imports the module of every class that ``features.json`` names: only its own are let through.

    Args:
      folder: of the set, which holds versions, or configurations that hold versions.

    Raises:
      ValueError: for a file that is no regular one, too large, no JSON, or says something that cannot be; it is named.
    """
    for place in (folder, *folder.glob("*/"), *folder.glob("*/*/")):
        for file in sorted(place.glob("*.json")) + sorted(place.glob(f"*{_LABELS_SUFFIX}")):
            check_regular(file, MAX_METADATA_BYTES)
        for name, check in (("features.json", _check_features), ("dataset_info.json", _check_info)):
            if (place / name).exists():
                content = _json(place / name)
                try:
                    check(content, place)
                except ValueError as error:
                    raise ValueError(f"{place / name}: {error}") from None


def check_regular(file: pathlib.Path, max_bytes: int | None = None) -> None:
    """Raises ValueError, which names the file, if it cannot be read, is no regular file, or is too large."""
    try:
        status = file.stat()
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{file} is no regular file")
    if max_bytes is not None and status.st_size > max_bytes:
        raise ValueError(f"{file} has {status.st_size:,} bytes, more than {max_bytes:,}")


def _json(file: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON file ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no JSON object")
    return content


def _objects(value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """All objects inside a JSON value."""
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _objects(item, depth + 1)


def _check_features(content: dict[str, Any], place: pathlib.Path) -> None:
    for item in _objects(content):
        for key in ("pythonClassName", "type"):
            named = item.get(key)
            if isinstance(named, str) and "." in named and not named.startswith(_FEATURES):
                raise ValueError(f"it names the class {named!r}, which is none of {_FEATURES}*")
    features = content.get("featuresDict", {})
    label = features.get("features", {}).get("label", {}) if isinstance(features, dict) else {}
    declared = label.get("classLabel", {}).get("numClasses") if isinstance(label, dict) else None
    names = place / f"label{_LABELS_SUFFIX}"
    if declared is not None and names.exists():
        count = sum(map(bool, names.read_bytes().split(b"\n")))
        if str(declared) != str(count):
            raise ValueError(f"it declares {declared} classes, and {names} names {count}")


def _check_info(content: dict[str, Any], place: pathlib.Path) -> None:
    del place
    for item in _objects(content.get("splits", [])):
        template = item.get("filepathTemplate", "")
        if not isinstance(template, str) or "/" in template or "\\" in template:
            raise ValueError(f"records are to be read from {template!r}, outside its folder")
        lengths = item.get("shardLengths", [])
        if not isinstance(lengths, list) or not all(str(n).isdecimal() and len(str(n)) < 16 for n in lengths):
            raise ValueError(f"the split {item.get('name')!r} has impossible numbers of records")

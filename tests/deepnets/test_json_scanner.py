"""Large JSON files, read through a window."""

import io
import json
import random

import pytest

from ghn_jax.deepnets.files import json_scanner
from ghn_jax.deepnets.files.json_scanner import JsonScanner, parse_json

VALUES = [{"a": [1, -2.5e3, None]}, {}, [], 'text \u00fc " ] }', 12, True, {"b": {"c": "\\"}}, "", [[]], 0.5]


@pytest.mark.parametrize("window", [1, 2, 3, 7, 64, 2**20])
@pytest.mark.parametrize("indent", [None, 0, 3])
def test_the_window_does_not_matter(window: int, indent: int | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json_scanner, "_WINDOW", window)
    data = json.dumps({"skip": VALUES, "list": VALUES, "deep": {"x": {"y": VALUES}}, "value": VALUES}, indent=indent)
    text = data.encode()
    scanner = JsonScanner(io.BytesIO(text))
    found = {}
    for key in scanner.members():
        if key == "list":
            found[key] = [parse_json(text[start:end]) for start, end in scanner.spans()]
        elif key == "value":
            found[key] = parse_json(scanner.value())
        else:
            scanner.pass_over()
    scanner.end()
    assert found == {"list": VALUES, "value": VALUES}


def walk_through(text: bytes) -> None:
    scanner = JsonScanner(io.BytesIO(text))
    for _ in scanner.members():
        scanner.pass_over()
    scanner.end()


def test_text_that_is_cut_off_is_refused_wherever_it_is():
    whole = json.dumps({"list": VALUES, "deep": {"x": VALUES}}).encode()
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=r"expected one of|begins no whole value"):
            walk_through(whole[:length])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1, "a": 2}', "'a' stands there twice"),
        (b'{"b": {"a": 1, "a": 2}}', "'a' stands there twice"),
        (b"[NaN]", "NaN is no number"),
        (b"-Infinity", "-Infinity is no number"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'"\xff"', "can't decode byte 0xff"),
        (b"1 2", "Extra data"),
        (b"9" * 5_000, "Exceeds the limit"),
        (b"", "Expecting value"),
    ],
)
def test_values_are_parsed_strictly(text: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1} x', "expected the end at byte 9, found 'x'"),
        (b'{"a": 1, "a": 2}', "the key before byte 12 is none, stands there twice or is one too many"),
        (b"{1: 2}", "the key before byte 2"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": "' + b"x" * (2**22 + 9) + b'"}', "begins no value of less than 4,194,304 bytes"),
        (b"{" + b",".join(b'"%d":1' % number for number in range(1_001)) + b"}", "one too many"),
    ],
)
def test_large_texts_are_walked_through_strictly(text: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        walk_through(text)


def test_lists_of_items_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json_scanner, "_MOST_ITEMS", 3)
    assert len(list(JsonScanner(io.BytesIO(b"[1, 2, 3]")).spans())) == 3
    with pytest.raises(ValueError, match="more than 3 items"):
        list(JsonScanner(io.BytesIO(b"[1, 2, 3, 4]")).spans())


def test_random_damage_ends(monkeypatch: pytest.MonkeyPatch):
    """Either everything is walked through, or a ValueError says where not."""
    monkeypatch.setattr(json_scanner, "_WINDOW", 16)
    rng = random.Random(0)
    whole = json.dumps({"list": VALUES, "deep": {"x": VALUES}}).encode()
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] = rng.randrange(256)
        try:
            walk_through(bytes(damaged))
        except ValueError:
            refused += 1
    assert 50 < refused < 300

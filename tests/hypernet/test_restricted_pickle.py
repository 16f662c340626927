import collections
import contextlib
import io
import pickle
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ghn_jax.hypernet.checkpoints.bounded_files import BoundedFile
from ghn_jax.hypernet.checkpoints.restricted_pickle import (
    RefusedPickleError,
    Unresolved,
    read_pickle,
)


def double(value: int) -> int:
    return 2 * value


NAMES = {("collections", "OrderedDict"): lambda: {}, (__name__, "double"): double, ("torch", "FloatStorage"): "float"}


def read(data: bytes, **options: Any) -> Any:
    return read_pickle(io.BytesIO(data), NAMES, **options)


PLAIN = {
    "state": [1, -1, 2**31, 2**70, 1.5, True, False, None, "text", (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "nested": {0: {"a": [[], {}]}},
    "b": b"bytes",
}


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_plain_values_come_back(protocol: int) -> None:
    value = read(pickle.dumps(PLAIN, protocol))
    assert value == PLAIN
    assert [type(item) for item in value["state"]] == [type(item) for item in PLAIN["state"]]


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_state_dict_is_a_dictionary_without_its_attributes(protocol: int) -> None:
    state = collections.OrderedDict(a=1, b=2)
    state._metadata = collections.OrderedDict({"": {"version": 1}})  # pyright: ignore[reportAttributeAccessIssue]
    value = read(pickle.dumps(state, protocol))
    assert type(value) is dict
    assert list(value.items()) == [("a", 1), ("b", 2)]


def test_several_pickles_follow_one_another_in_a_file() -> None:
    file = io.BytesIO(pickle.dumps([1], 2) + pickle.dumps("two", 2) + b"rest")
    assert [read_pickle(file, {}) for _ in range(2)] == [[1], "two"]
    assert file.read() == b"rest"


class Foreign:
    def __init__(self) -> None:
        self.inside = [1]


def test_names_mean_what_the_table_says() -> None:
    assert read(b"\x80\x02c" + __name__.encode() + b"\ndouble\nK\x04\x85R.") == 8
    assert read(b"\x80\x02ctorch\nFloatStorage\n.") == "float"
    foreign = pickle.dumps({"kept": 1, "args": Foreign()}, 2)
    with pytest.raises(RefusedPickleError, match=r"names .*Foreign, which is not allowed"):
        read(foreign)
    assert read(foreign, keep_unknown=True) == {"kept": 1, "args": Unresolved(__name__, "Foreign")}


def test_persistent_ids_are_resolved_by_the_caller_or_refused() -> None:
    data = b"\x80\x02X\x01\x00\x00\x00aQ."
    assert read(data, persistent=lambda identity: identity + "b") == "ab"
    with pytest.raises(RefusedPickleError, match="BINPERSID is not allowed"):
        read(data)


def nested(opening: bytes, closing: bytes, depth: int) -> bytes:
    return b"\x80\x02" + opening * depth + closing * depth + b"."


def laughs(opening: bytes, closing: bytes, levels: int) -> bytes:
    """A tuple of containers, each of which holds the one before it twice."""
    out = [b"\x80\x02(", opening + b"(" + closing + b"q\x00"]
    for level in range(levels):
        out.append(opening + b"(" + 2 * (b"h" + bytes([level])) + closing + b"q" + bytes([level + 1]))
    return b"".join([*out, b"t"])


BINARY_INT = b"J" + struct.pack("<i", 5)
HOSTILE = {
    "nested tuples": (nested(b")", b"\x85", 1)[:-1] + b"\x85" * 100_000 + b".", "nested deeper than 32"),
    "nested lists": (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "nested deeper than 32"),
    "nested tuple as a key": (b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.", "key of type tuple"),
    "tuple as a key": (b"\x80\x02}K\x01\x85Ns.", "key of type tuple"),
    "bool as a key": (b"\x80\x02}\x88Ns.", "key of type bool"),
    "colliding keys": (b"\x80\x02}\x8a\x09" + (2**61 - 1).to_bytes(9, "little") + b"Ns.", "huge number"),
    "one key twice": (b"\x80\x02}(K\x01NK\x01Nu.", "key 1 twice"),
    "a list in itself": (b"\x80\x02]q\x00h\x00a.", "nested deeper"),
    "memo index of ten million": (b"\x80\x02Nr" + struct.pack("<I", 10**7) + b".", "number 10,000,000"),
    "laughing tuples": (laughs(b"", b"t", 60) + b".", "more than 1,000,000 values"),
    "laughing lists": (laughs(b"]", b"e", 60) + b".", "more than 1,000,000 values"),
    "laughing argument": (
        b"\x80\x02c" + __name__.encode() + b"\ndouble\n" + laughs(b"", b"t", 60)[2:] + b"R.",
        "more than 1,000,000",
    ),
    "many instructions": (b"\x80\x02" + b"N0" * 10 + b"(" * 300_001, "POP is not allowed"),
    "many marks": (b"\x80\x02" + b"(" * 300_001 + b".", "more than 300,000 instructions"),
    "declared text": (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged: expected 2147483647 bytes"),
    "declared bytes": (b"\x80\x03B\xff\xff\xff\xffabc.", "damaged: expected 4294967295 bytes"),
    "much text": (b"\x80\x02X" + struct.pack("<I", 70_000) + bytes(70_000) + b".", "70,000 bytes is larger"),
    "a name without an end": (b"\x80\x02c" + b"a" * 5_000, "no newline"),
    "half a character": (b"\x80\x02X\x03\x00\x00\x00\xed\xa0\x80.", "surrogates not allowed"),
    "protocol 0": (b"I1\n.", "INT is not allowed"),
    "protocol 9": (b"\x80\x09N.", "protocol 9"),
    "nothing": (b"", "exhausted"),
    "an empty stack": (b"\x80\x02.", "damaged"),
    "two values": (b"\x80\x02NN.", "damaged"),
    "no mark": (b"\x80\x02Nt.", "lacks its arguments"),
    "a mark as a value": (b"\x80\x02}((s.", "lacks its arguments"),
    "too few values": (b"\x80\x02N\x87.", "lacks its arguments"),
    "a missing memo": (b"\x80\x02h\x07.", "value 7 is asked for"),
    "a key without a value": (b"\x80\x02}(Nu.", "without a value"),
    "items of a list": (b"\x80\x02]NNs.", "not a dictionary"),
    "appending to a dictionary": (b"\x80\x02}Na.", "not a list"),
    "calling a number": (b"\x80\x02K\x01)R.", "not a function"),
    "calling without a tuple": (b"\x80\x02ccollections\nOrderedDict\n]R.", "without a tuple"),
    "wrong arguments": (b"\x80\x02ccollections\nOrderedDict\nN\x85R.", "damaged"),
    "attributes of a list": (b"\x80\x02]}b.", "attributes"),
    "a name that is a number": (b"\x80\x04K\x01K\x02\x93.", "a name is not text"),
    "an extension": (b"\x80\x02\x82\x01.", "EXT1 is not allowed"),
    "a set": (b"\x80\x04\x8f.", "EMPTY_SET is not allowed"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(name: str) -> None:
    data, message = HOSTILE[name]
    with pytest.raises(RefusedPickleError, match=message):
        read(data)


def test_bounded_files_are_not_asked_for_more_than_there_is() -> None:
    file = BoundedFile(io.BytesIO(b"0123456789"), most=5)
    assert (file.size, file.read(4), file.read(4), file.read(2**40)) == (10, b"0123", b"4567", b"89")
    file.seek(0)
    with pytest.raises(ValueError, match="10 bytes is larger than the 5"):
        file.read()


KEYS = st.text() | st.integers(-(2**40), 2**40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**2000), 2**2000) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner),
    max_leaves=10,
)


@given(value=VALUES, protocol=st.integers(2, 5))
@settings(max_examples=50)
def test_every_plain_value_comes_back(value: Any, protocol: int) -> None:
    assert repr(read(pickle.dumps(value, protocol))) == repr(value)


SIMPLE = [b"(", b")", b"}", b"]", b"N", b"\x88", b"t", b"\x85", b"\x86", b"s", b"u", b"a", b"e", b"R", b"b", b"Q"]
LONGER = [b"K\x05", b"q\x00", b"h\x00", b"\x94", b"\x93", b"\x81", b"X\x01\x00\x00\x00a"]
NAMING = [b"ccollections\nOrderedDict\n", b"cos\nsystem\n"]
PROGRAMS = st.lists(st.sampled_from(SIMPLE + LONGER + NAMING), max_size=30).map(b"".join) | st.binary(max_size=60)


@given(program=PROGRAMS)
@settings(max_examples=500)
def test_no_program_does_anything_but_give_a_value_or_be_refused(program: bytes) -> None:
    with contextlib.suppress(RefusedPickleError):
        read(b"\x80\x02" + program + b".", persistent=lambda identity: 0, keep_unknown=True)

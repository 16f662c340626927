import contextlib
import io
import pathlib
import socket
import threading
from collections.abc import Callable, Generator

import pytest

from ghn_jax.downloads import fetch
from ghn_jax.hypernet import load_ghn

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
Answer = Callable[[socket.socket, threading.Event], None]


@contextlib.contextmanager
def serving(answer: bytes | Answer) -> Generator[str]:
    """An address on loopback that answers every request by these bytes, or by doing something to the connection."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(answer) if isinstance(answer, bytes) else answer(connection, over)

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            over.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def get(url: str, most: int = 1000, *, seconds: float = 30.0, size: int | None = None) -> bytes:
    received = io.BytesIO()
    fetch(url, received, most, seconds=seconds, size=size, idle_seconds=0.5)
    return received.getvalue()


def slowly(begin: bytes, block: bytes, pause: float = 0.05) -> Answer:
    """Sends the beginning, then the block again and again."""

    def answer(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(begin)
        while not over.wait(pause):
            connection.sendall(block)

    return answer


def silent(_: socket.socket, over: threading.Event) -> None:
    over.wait()


def test_bytes_come_whole() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    for answer in (GOOD, chunked, b"HTTP/1.0 200 OK\r\n\r\nabc"):
        with serving(answer) as url:
            assert get(url) == get(url, 3) == get(url, size=3) == b"abc"
    with serving(GOOD) as there, serving(b"HTTP/1.1 302 Found\r\nLocation: " + there.encode() + b"/x\r\n\r\n") as url:
        assert get(url) == b"abc"


OK = b"HTTP/1.1 200 OK\r\n"
MISBEHAVIOUR: dict[str, tuple[bytes | Answer, str]] = {
    "hangs up": (b"", "closed connection"),
    "says nothing": (silent, "timed out"),
    "stops": (slowly(OK + b"Content-Length: 9\r\n\r\nabc", b"", 1.0), "timed out"),
    "nonsense": (b"HELLO\r\n\r\n", "HELLO"),
    "an error": (b"HTTP/1.1 503 Busy\r\nContent-Length: 9999999999999\r\n\r\n", "answers 503 Busy"),
    "too short": (OK + b"Content-Length: 9\r\n\r\nabc", "ends after 3 of 9 bytes"),
    "a cut chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nabc", "IncompleteRead|ends after"),
    "a bad chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc", "IncompleteRead|invalid literal"),
    "declared": (OK + b"Content-Length: 10000000000000\r\n\r\nabc", "announces 10,000,000,000,000 bytes"),
    "a declared chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffff\r\n" + b"a" * 5000, "more than at most"),
    "endless": (slowly(OK + b"\r\n", b"a" * 500, 0.0), "more than at most 1,000 bytes"),
    "a long header": (OK + b"X: " + b"a" * 100_000, "header line"),
    "many headers": (OK + b"X: a\r\n" * 1_000 + b"\r\n", "headers"),
    "leads to itself": (b"HTTP/1.1 301 Moved\r\nLocation: /again\r\n\r\n", "elsewhere more than 5 times"),
    "leads into the disk": (b"HTTP/1.1 301 Moved\r\nLocation: file:///etc/passwd\r\n\r\n", "unknown url type"),
    "leads nowhere": (b"HTTP/1.1 301 Moved\r\n\r\n", "answers 301"),
}


@pytest.mark.parametrize("name", MISBEHAVIOUR)
def test_servers_that_misbehave_are_named(name: str) -> None:
    answer, message = MISBEHAVIOUR[name]
    with serving(answer) as url, pytest.raises(ValueError, match=f"{url}: .*({message})"):
        get(url)


@pytest.mark.parametrize("begin", [b"HTTP", OK + b"X: ", OK + b"\r\n", OK + b"Content-Length: 900\r\n\r\n"])
def test_the_whole_time_is_limited_however_a_server_drips(begin: bytes) -> None:
    with serving(slowly(begin, b"a")) as url, pytest.raises(ValueError, match=f"{url}: it takes longer than 0.7 s"):
        get(url, seconds=0.7)


def test_https_is_under_the_same_limits() -> None:
    record = b"\x16\x03\x03\x40\x00"  # announces 16,384 bytes of a handshake
    for answer in (GOOD, b"", silent, slowly(record, b"a")):
        with serving(answer) as url, pytest.raises(ValueError, match=r"https.*: .*(SSL|EOF|timed out|reset|longer)"):
            get(url.replace("http", "https"), seconds=0.7)


def test_redirections_that_never_end_are_not_read() -> None:
    begin = b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n"
    with serving(slowly(begin, b"a" * 500, 0.0)) as url, pytest.raises(ValueError, match="elsewhere more than 5"):
        get(url)


def test_known_sizes_are_held_to() -> None:
    with serving(GOOD) as url:
        for size in (2, 4):
            with pytest.raises(ValueError, match=f"announces 3 bytes, expected {size} bytes"):
                get(url, size=size)
        with pytest.raises(ValueError, match="announces 3 bytes, expected at most 2 bytes"):
            get(url, 2)
    with serving(b"HTTP/1.0 200 OK\r\n\r\nabc") as url:
        with pytest.raises(ValueError, match="sends more than 2 bytes"):
            get(url, size=2)
        with pytest.raises(ValueError, match="ends after 3 of 4 bytes"):
            get(url, size=4)


def test_addresses_that_nobody_answers_at_are_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/x", "ftp://127.0.0.1/x", "no address", "http://127.0.0.1:99999/x"):
        with pytest.raises(ValueError, match=f"{url}: "):
            get(url)


@pytest.mark.parametrize("name", ["hangs up", "nonsense", "too short", "declared", "leads to itself"])
def test_a_checkpoint_that_does_not_come_is_named_with_the_remedy(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GHN_JAX_CACHE", str(tmp_path / "cache"))
    message = r"mlp_cifar10.pt cannot be downloaded .* yourself to .*mlp_cifar10\.pt"
    with serving(MISBEHAVIOUR[name][0]) as url, pytest.raises(ValueError, match=message):
        load_ghn("ppuda:mlp_cifar10", url)
    assert not (tmp_path / "cache").exists()

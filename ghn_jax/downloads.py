"""Downloads within bounds: of bytes, of time without a byte, and of time in all."""

import contextlib
import http.client
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, BinaryIO, Final, Self

IDLE_SECONDS: Final = 60.0
"""Without a byte, or until a connection stands."""

_BLOCK = 1 << 16
_REDIRECTIONS = 5
_MOVED = (301, 302, 303, 307, 308)


def fetch(
    url: str, into: BinaryIO, most: int, *, seconds: float, size: int | None = None, idle_seconds: float = IDLE_SECONDS
) -> None:
    """Writes what lies at an address into an open file. No server can make it take more memory, disk or time.

    Args:
      url: the address, http or https.
      into: gets the bytes, of which some may be there already when an error is raised.
      most: bytes that are accepted.
      seconds: that it may take in all.
      size: exact number of bytes, if that is known.
      idle_seconds: that may pass without a byte.

    Raises:
      ValueError: for an address that does not answer, answers with an error or with nonsense, or whose bytes are too
        many, too few or too slow; names the address.
    """
    deadline = _Deadline(seconds)
    try:
        with deadline, deadline.open(url, min(idle_seconds, seconds)) as response:
            declared = response.length
            if declared is not None and (declared > most or size not in (None, declared)):
                raise ValueError(f"it announces {declared:,} bytes, expected {_words(most, size)}")
            received = 0
            while block := response.read1(_BLOCK):
                received += len(block)
                if received > (most if size is None else size):
                    raise ValueError(f"it sends more than {_words(most, size)}")
                into.write(block)
                deadline.check()
            deadline.check()
            wanted = declared if size is None else size
            if wanted is not None and received != wanted:
                raise ValueError(f"it ends after {received:,} of {wanted:,} bytes")
    except (OSError, http.client.HTTPException, ValueError) as error:
        words = " ".join(str(error).split()) or repr(error)
        reason = f"it takes longer than {seconds:g} s" if deadline.passed else words
        raise ValueError(f"{url}: {reason:.500}") from None


def _words(most: int, size: int | None) -> str:
    return f"at most {most:,} bytes" if size is None else f"{size:,} bytes"


class _Deadline:
    """Cuts the connections that were opened under it when its time is over, whatever they are waiting for."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        for connected in self._sockets:
            connected.close()

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._end

    def check(self) -> None:
        """Raises TimeoutError after the end."""
        if self.passed:
            raise TimeoutError

    def keep(self, connected: socket.socket) -> None:
        """A connection to be cut, by a socket of our own: TLS takes the given one over."""
        self._sockets.append(connected.dup())
        self.check()

    def open(self, url: str, idle_seconds: float) -> http.client.HTTPResponse:
        """The answer from where an address leads. Nothing but headers is read of answers that lead elsewhere."""
        opener = urllib.request.OpenerDirector()  # without handlers of errors and redirections, which read all
        for handler in (urllib.request.ProxyHandler(), urllib.request.UnknownHandler(), _Handler(self.keep)):
            opener.add_handler(handler)
        for _ in range(_REDIRECTIONS + 1):
            response = opener.open(url, timeout=idle_seconds)
            if response.status == 200:
                return response
            response.close()
            place = response.headers.get("Location")
            if response.status not in _MOVED or place is None:
                raise ValueError(f"the server answers {response.status} {response.reason:.80}")
            url = urllib.parse.urljoin(url, place)
        raise ValueError(f"it leads elsewhere more than {_REDIRECTIONS} times")

    def _cut(self) -> None:
        for connected in self._sockets:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)


class _Handler(urllib.request.AbstractHTTPHandler):
    """Opens http and https by connections that are shown to `keep`."""

    def __init__(self, keep: Callable[[socket.socket], None]) -> None:
        super().__init__()
        self._keep = keep

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_connections(http.client.HTTPConnection, self._keep), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_connections(http.client.HTTPSConnection, self._keep), request)

    http_request = urllib.request.AbstractHTTPHandler.do_request_
    https_request = urllib.request.AbstractHTTPHandler.do_request_


def _connections(base: Any, keep: Callable[[socket.socket], None]) -> Any:
    """Class of connections that show their socket as soon as it stands, before TLS or a proxy has said anything."""

    class Kept(base):
        _connected: Any = None

        @property
        def sock(self) -> Any:
            return self._connected

        @sock.setter
        def sock(self, connected: Any) -> None:
            self._connected = connected
            if type(connected) is socket.socket:
                keep(connected)

    return Kept

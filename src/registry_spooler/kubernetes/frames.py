"""The frames of the exec channel: plain code, fed one WebSocket message at a time.

A message's first byte is its channel, the rest its bytes. Standard input goes out on channel 0; standard
output, standard error and the closing status come in on 1, 2 and 3. One more message, byte 255 and a channel,
closes that channel: the only way to end standard input without ending the connection. It is what version 5 of the
subprotocol added; servers before Kubernetes 1.30 lack it and are not supported.

https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/4006-transition-spdy-to-websockets
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    from typing_extensions import Buffer


SUBPROTOCOL: Final = "v5.channel.k8s.io"

FRAME_BYTES: Final = 32 * 1024
"""The most payload in one message: what kubectl sends, so every server and proxy has seen it."""
STATUS_LIMIT_BYTES: Final = 1 << 20
"""A status is a few hundred bytes; more than this is no status."""

_CLOSE: Final = 255
_CANNOT_START: Final = (
    "executable",
    "no such file or directory",
    "permission denied",
    "not a directory",
    "exec format error",
)
"""Of the messages of runc, crun and gVisor, those about the program itself."""


class Channel(enum.IntEnum):
    """The streams of an exec."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3


@dataclass(frozen=True, slots=True)
class ChannelOutput:
    """Bytes that the command wrote; never empty."""

    channel: Channel
    data: bytes


@dataclass(frozen=True, slots=True)
class Exited:
    """The command's end. `code` is None when it never ran, or nobody knows how it ended: then `message` says why."""

    code: int | None
    message: str = ""

    @property
    def never_starts(self) -> bool:
        """Does the container lack the program? Any other reason (no kubelet, no container yet) may pass."""
        said = self.message.lower()
        return self.code is None and "dial " not in said and any(words in said for words in _CANNOT_START)


class FrameError(ValueError):
    """A message that is none of this protocol."""


def stdin_frames(data: Buffer) -> Iterator[bytes]:
    """Cut bytes into messages for standard input, each at most FRAME_BYTES and its channel."""
    view = memoryview(data).cast("B")
    for start in range(0, len(view), FRAME_BYTES):
        yield b"".join((b"\x00", view[start : start + FRAME_BYTES]))


def close_frame(channel: Channel) -> bytes:
    """Return the message that closes a channel."""
    return bytes((_CLOSE, channel))


class FrameReader:
    """Reads what the server sends. One per connection; it holds no more than a status."""

    def __init__(self) -> None:
        self._status = bytearray()
        self._exited: Exited | None = None

    @property
    def exited(self) -> Exited | None:
        """How the command ended, once the server has said so."""
        return self._exited

    def feed(self, message: bytes) -> ChannelOutput | Exited | None:
        """Take one message; None when it says nothing to the caller. FrameError when it is no frame.

        The status may come in pieces: it is complete as soon as it reads as JSON.
        """
        if not message:
            raise FrameError("an empty message has no channel")
        number = message[0]
        if number == _CLOSE:
            return None  # the server closes a stream that has ended: its bytes have all been seen
        try:
            channel = Channel(number)
        except ValueError as exc:
            raise FrameError(f"there is no channel {number}") from exc
        if channel is Channel.ERROR:
            return self._feed_status(message[1:])
        if len(message) == 1 or channel not in (Channel.STDOUT, Channel.STDERR):
            return None  # servers open each channel with an empty message
        return ChannelOutput(channel, message[1:])

    def _feed_status(self, data: bytes) -> Exited | None:
        self._status += data
        if len(self._status) > STATUS_LIMIT_BYTES:
            raise FrameError("the status is too long")
        try:
            document = orjson.loads(self._status)
        except orjson.JSONDecodeError:
            return None
        self._exited = read_status(document)
        return self._exited


def read_status(document: object) -> Exited:
    """The exit code in a `Status` object, or the reason why there is none.

    https://github.com/kubernetes/apimachinery/blob/master/pkg/apis/meta/v1/types.go (`Status`, `StatusCause`)
    """
    if not isinstance(document, dict):
        return Exited(None, "the status is no object")
    if document.get("status") == "Success":
        return Exited(0)
    message = str(document.get("message") or document.get("reason") or "no reason given")
    details = document.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    for cause in causes if isinstance(causes, list) else ():
        if isinstance(cause, dict) and cause.get("reason") == "ExitCode":
            try:
                return Exited(int(str(cause.get("message"))), message)
            except ValueError:
                break
    return Exited(None, message)

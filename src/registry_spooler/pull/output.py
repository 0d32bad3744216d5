"""Where a pull writes to, and what can go wrong: a descriptor, or a file that appears when it is complete.

Writes are blocking calls in a thread. A reader that takes its time must not keep a cancelled pull alive,
so a write to a pipe is left behind on cancellation; a file's is waited for, since its descriptor is
closed next.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
import anyio.to_thread

from registry_spooler.aio import in_thread
from registry_spooler.errors import SpoolerError
from registry_spooler.oci.digest import Digest

if TYPE_CHECKING:
    from typing_extensions import Buffer


class PlatformNotFound(SpoolerError):
    """The image does not exist for that platform, or for several when none was asked for."""

    image: str
    wanted: str
    available: tuple[str, ...]

    def _sentence(self) -> str:
        choice = ", ".join(self.available) or "none at all"
        return f"{self.image} is not there for {self.wanted}; choose with --platform from: {choice}"


class InvalidPlatform(SpoolerError):
    """A platform that is not `os/architecture[/variant]`."""

    text: str
    sentence = "{text!q} is not a platform; write it as os/architecture[/variant], such as linux/arm64"


class NotAnImage(SpoolerError):
    """An artifact that no container engine could load."""

    image: str
    kind: str
    sentence = "{image} is not a container image but {kind!q}; pull it with --format oci, or --unpack"


class NotOneFile(SpoolerError):
    """More or less than the one layer that `--unpack` can give back."""

    image: str
    layers: int
    sentence = "{image} has {layers} layers, and only an image of one file can be unpacked; pull the archive"


class IncompleteImage(SpoolerError):
    """The registry lacks something that the image's own manifest names."""

    image: str
    digest: Digest
    sentence = "the registry holds {image} without its part {digest}; push the image again"


class ImageTooLarge(SpoolerError):
    """More manifests than an image can sensibly have."""

    image: str
    reason: str
    sentence = "{image} is not pulled: {reason}"


class WrongContent(SpoolerError):
    """A layer that does not decompress to what the image's config says of it."""

    image: str
    reason: str
    sentence = "the layer of {image} is damaged: {reason}"


class OutputFailed(SpoolerError):
    """What was pulled cannot be written where it should go."""

    name: str
    reason: str
    sentence = "cannot write {name}: {reason}"


class OutputClosed(Exception):
    """The reader of our output has gone. That is its decision, and no error is shown."""


T = TypeVar("T")

PIPE_BYTES: Final = 1 << 20
"""As much as one piece, so that writer and reader run side by side; the kernel's default is 64 KiB."""


@dataclass(frozen=True, slots=True)
class Output:
    """Takes pieces of any size, in order. The descriptor stays the caller's; `name` is for errors."""

    fd: int
    name: str
    leaves_writes: bool = True
    """Whether a write may go on in its thread after a cancellation."""
    write_all: Callable[[int, Buffer], None] = lambda fd, piece: _write_all(fd, piece)
    """Writes a piece to a descriptor, in a thread; may wait for its reader."""

    async def write(self, piece: Buffer) -> None:
        """Write all of a piece; OutputClosed when the reader has gone, OutputFailed for anything else."""
        try:
            await anyio.to_thread.run_sync(self.write_all, self.fd, piece, abandon_on_cancel=self.leaves_writes)
        except OSError as exc:
            if exc.errno in (errno.EPIPE, errno.ECONNRESET):
                raise OutputClosed from exc
            raise OutputFailed(self.name, exc.strerror or str(exc)) from exc


def standard_output() -> Output:
    """Return the standard output of the process."""
    enlarge_pipe(1)
    return Output(1, "standard output")


def enlarge_pipe(fd: int) -> None:
    """Make a pipe large enough to keep both ends busy."""
    with contextlib.suppress(OSError, AttributeError, ImportError):  # no pipe, over the user's limit, or not Linux
        import fcntl

        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


@asynccontextmanager
async def output_file(path: Path) -> AsyncGenerator[Output]:
    """Open a file that gets its name when the block ends well, and leaves nothing behind when it does not.

    Its name meanwhile starts with a dot and ends in `~`, so that it can be written in a spool directory. What is
    no regular file (a FIFO, `/dev/null`) is written as it is.
    """
    fd, target, temporary = await in_thread(_translated, path, _open)
    complete = False
    try:
        yield Output(fd, str(path), leaves_writes=temporary is None)
        complete = True
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(os.close, fd)
            if temporary is not None and complete:
                await in_thread(_translated, path, lambda _: _publish(temporary, target))
            elif temporary is not None:
                await in_thread(temporary.unlink, True)


def _publish(temporary: Path, target: Path) -> None:
    try:
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _translated(path: Path, act: Callable[[Path], T]) -> T:
    try:
        return act(path)
    except OSError as exc:
        raise OutputFailed(str(path), exc.strerror or str(exc)) from exc


def _open(path: Path) -> tuple[int, Path, Path | None]:
    target = Path(os.path.realpath(path))
    try:
        is_special = not stat.S_ISREG(target.stat().st_mode)
    except FileNotFoundError:
        is_special = False
    if is_special:
        return os.open(target, os.O_WRONLY | os.O_CLOEXEC), target, None
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}~")
    return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), target, temporary


def _write_all(fd: int, piece: Buffer) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(fd, rest) :]

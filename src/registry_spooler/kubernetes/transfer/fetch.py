"""Pulling an image from afar: what `registry-client pull` writes in the pod, into a file here.

The pod verifies every byte against the image's digests, and its last word says whether all of them came. It is not
believed: the archive is checked again as it comes, and what was asked for by its digest is traced back to it. A file
appears under its name only then; until it does, a broken connection starts it again. What goes to a pipe cannot be
taken back, so there a broken connection is an error, and so is an archive that turns out to be wrong. The file that an
image was made from is unpacked here, from an archive in a temporary file that has been checked.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import anyio

from registry_spooler.aio import in_thread
from registry_spooler.errors import ArchiveError
from registry_spooler.kubernetes.cluster_errors import NotTheImage
from registry_spooler.kubernetes.remote_session import PodSession, Remote
from registry_spooler.kubernetes.transfer.verified_archive import NotAsPulled, Pulled, PulledArchive, unpack
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.manifest import Manifest
from registry_spooler.oci.reference import Reference
from registry_spooler.pull.output import OutputFailed

if TYPE_CHECKING:
    from typing_extensions import Buffer


WRITE_BYTES: Final = 1 << 20
"""What is collected before it is written: messages are small, and each write is a hand-off to a thread."""
MANIFESTS_MAX: Final = 1_000
"""Below one index: far more than any image has platforms."""

OnBytes = Callable[[int], None]
"""Told how many bytes have come in this attempt."""
OnWarning = Callable[[str], None]
"""Told what is lacking in a pull that went well, in a sentence."""


async def fetch(
    session: PodSession,
    reference: Reference,
    options: Sequence[str],
    target: Path | BinaryIO,
    on_bytes: OnBytes = lambda _: None,
    on_warning: OnWarning = lambda _: None,
) -> int:
    """Pull an image in the pod, with these options, and write it to `target` as an archive; the number of bytes.

    NotTheImage when the pod sends something else, other KubeErrors, OutputFailed, OSError.
    """
    async with _writing(target) as file:
        pull = _Pull(reference, options, file, on_bytes, on_warning)
        if file is target:
            return await pull.run(await session.remote())
        return await session.ask(pull.run_again)


async def fetch_file(
    session: PodSession,
    reference: Reference,
    options: Sequence[str],
    target: Path | BinaryIO,
    on_bytes: OnBytes = lambda _: None,
    on_warning: OnWarning = lambda _: None,
) -> int:
    """Pull the file that an image was made from, and write it to `target`; the number of bytes.

    Errors as `fetch` has them, and those of `unpacked.unpack`. Needs room for the archive, for files beside the target.
    """
    beside = target.parent if isinstance(target, Path) else None
    async with _writing(target) as file:
        with await in_thread(_temporary, beside) as archive:
            pull = _Pull(reference, ["--format", "oci", "--no-referrers", *options], archive, on_bytes, on_warning)
            await session.ask(pull.run_again)
            output = _Written(file)
            await unpack(archive, reference, output)
    on_bytes(output.size)
    return output.size


@asynccontextmanager
async def _writing(target: Path | BinaryIO) -> AsyncGenerator[BinaryIO]:
    """The file to write to: what was given, or one that gets the path's name when the block ends well."""
    if not isinstance(target, Path):
        yield target
        return
    file, partial = await in_thread(_create, target)
    try:
        yield file
        await in_thread(_finish, file, partial, target)
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(_discard, file, partial)


class _Written:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = 0

    async def write(self, piece: Buffer) -> None:
        await in_thread(_write_all, self._file, piece)
        self.size += memoryview(piece).nbytes


class _Pull:
    def __init__(
        self,
        reference: Reference,
        options: Sequence[str],
        file: BinaryIO,
        on_bytes: OnBytes,
        on_warning: OnWarning,
    ) -> None:
        self._reference = reference
        self._arguments = ["pull", *options, "--", str(reference)]
        self._file = file
        self._on_bytes = on_bytes
        self._on_warning = on_warning
        self._archive = PulledArchive(reference)
        self._buffer = bytearray()
        self._size = 0

    async def run_again(self, remote: Remote) -> int:
        """As `run`, from the file's beginning."""
        await in_thread(self._rewind)
        return await self.run(remote)

    async def run(self, remote: Remote) -> int:
        """Write what the pod sends, and check it; the number of bytes."""
        async with self._believed(remote):
            await remote.call(*self._arguments, on_stdout=self._take, on_warning=self._on_warning)
            await self._flush()
            await self._check(remote, await in_thread(self._archive.finish))
        return self._size

    @asynccontextmanager
    async def _believed(self, remote: Remote) -> AsyncGenerator[None]:
        try:
            yield
        except (NotAsPulled, ArchiveError) as exc:
            raise NotTheImage(remote.container.pod, str(self._reference), str(exc)) from exc

    async def _check(self, remote: Remote, pulled: Pulled) -> None:
        """See that the archive is what the digest means that was asked for."""
        asked = self._reference.digest
        if asked is None or asked in pulled.images:
            return
        waiting = [asked]
        for _ in range(MANIFESTS_MAX):
            if not waiting:
                break
            manifest = await self._manifest(remote, waiting.pop(0))
            layers = tuple(layer.digest for layer in manifest.layers)
            if manifest.digest in pulled.images or (
                manifest.config is not None and (manifest.config.digest, layers) == (pulled.config, pulled.layers)
            ):
                return
            waiting += [child.digest for child in manifest.manifests if not child.is_attestation]
        raise NotAsPulled("it is another image")

    async def _manifest(self, remote: Remote, digest: Digest) -> Manifest:
        named = Reference(self._reference.repository, None, digest)
        content = await remote.call("inspect", "--raw", "--", str(named))
        if Digest.of(content, digest.algorithm) != digest:
            raise NotAsPulled(f"its manifest is not {digest}")
        return await in_thread(Manifest.parse, content)

    async def _take(self, data: bytes) -> None:
        self._buffer += data
        self._size += len(data)
        self._on_bytes(self._size)
        if len(self._buffer) >= WRITE_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        piece, self._buffer = self._buffer, bytearray()
        await in_thread(self._write, piece)

    def _write(self, piece: bytearray) -> None:
        self._archive.feed(piece)
        _write_all(self._file, piece)

    def _rewind(self) -> None:
        self._archive = PulledArchive(self._reference)
        self._buffer.clear()
        self._size = 0
        self._file.seek(0)
        self._file.truncate()


def _write_all(file: BinaryIO, piece: Buffer) -> None:
    view = memoryview(piece)
    while view:
        view = view[file.write(view) or 0 :]
    file.flush()


def _temporary(folder: Path | None) -> BinaryIO:
    return tempfile.TemporaryFile(dir=folder, buffering=0)


def _create(target: Path) -> tuple[BinaryIO, Path]:
    with _named(target):
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}-")
    return os.fdopen(descriptor, "w+b", buffering=0), Path(name)


def _finish(file: BinaryIO, partial: Path, target: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    with _named(target):
        file.close()
        partial.chmod(0o666 & ~umask)
        partial.replace(target)


@contextmanager
def _named(target: Path) -> Iterator[None]:
    """Name the file that was asked for in an error, not the temporary one beside it."""
    try:
        yield
    except OSError as exc:
        raise OutputFailed(str(target), exc.strerror or str(exc)) from exc


def _discard(file: BinaryIO, partial: Path) -> None:
    file.close()
    partial.unlink(missing_ok=True)

"""A registry that is reached only through its pod: what the push engine asks of a registry, over exec calls.

Questions are collected: all that is asked before the exec is open is one `registry-client missing`. Questions and
manifests go over one exec, and what is short does too while nobody else uses it: an image with one rebuilt layer takes
no other. A blob that the registry lacks is packed first, so that its digest and size are known: read once for that when
the source can be read again, else written to a file in the user's cache (a layer that is compressed here, or comes from
a pipe). Then it goes out in one `receive --blobs`, a few of them side by side. Small blobs and manifests wait for the
image's tag, and go with it in one thin archive to `receive`, which answers when the registry does.

A layer that is compressed here may go as a recipe (`layer_deltas.py`), from which the pod makes it.

After a cut, each blob that was on its way is asked for before it is sent again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

import anyio

from registry_spooler.aio import task_group
from registry_spooler.delta.base import LayerStep
from registry_spooler.delta.recipe import Recipe
from registry_spooler.errors import NotFound
from registry_spooler.kubernetes.cluster_errors import RemoteError
from registry_spooler.kubernetes.redial import Redial
from registry_spooler.kubernetes.remote_session import Input, Remote
from registry_spooler.kubernetes.transfer.conversation import Conversation
from registry_spooler.kubernetes.transfer.layer_deltas import DeltaMode, LayerDelta, LayerDeltas, recipe_input
from registry_spooler.kubernetes.transfer.link_rate import LinkRate
from registry_spooler.kubernetes.transfer.thin_archive import (
    ArchivePart,
    PackedBlob,
    content_part,
    image_parts,
    measure,
    pack,
    reread_part,
)
from registry_spooler.kubernetes.wire import Document
from registry_spooler.oci.blob import BlobOpener, BlobReader, Measured
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.image_config import ImageConfig
from registry_spooler.oci.layout_writer import blob_path
from registry_spooler.oci.manifest import Descriptor, Manifest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import Progress

T = TypeVar("T")

ASK_SECONDS: Final = 0.01
"""How long a question waits for another to go with it."""
SMALL_BYTES: Final = 256 * 1024
"""A blob below this costs less than an exec of its own."""
SMALL_TOTAL_BYTES: Final = 4 << 20
"""Of the small blobs that wait in memory; then they go."""
SHORT_BYTES: Final = 2 << 20
"""What may keep a question waiting that is asked meanwhile."""
PACKERS: Final = 2
"""Blobs that are read and compressed at once. More would only hold more memory."""
PACKED_MAX: Final = 4
"""Those that wait to be sent included: each may take a file in the user's cache."""
NOT_FOUND: Final = 3
"""The exit code of `registry-client`."""


@dataclass(slots=True)
class _Question:
    """What is asked of one repository at once; `answer` has the sizes of what is there."""

    digests: dict[Digest, None] = field(default_factory=dict)
    answered: anyio.Event = field(default_factory=anyio.Event)
    answer: dict[Digest, int] | None = None


@dataclass(slots=True)
class _BeforeTag:
    """What goes with the tag of one repository's next image."""

    manifests: dict[Digest, Manifest] = field(default_factory=dict)
    companions: dict[str, Manifest] = field(default_factory=dict)
    blobs: dict[Digest, ArchivePart] = field(default_factory=dict)

    @property
    def blob_bytes(self) -> int:
        return sum(part.size for part in self.blobs.values())


@dataclass(slots=True)
class _Rebuilding:
    """A layer that the pod may make. `digest` is that of what it made, when it has `ended`."""

    delta: LayerDelta
    recipe_bytes: int = 0
    digest: Digest | None = None
    ended: anyio.Event = field(default_factory=anyio.Event)


class RemoteRegistry:
    """`push.Registry` over `registry-client` in a pod. `folder` takes blobs that cannot be read twice."""

    def __init__(
        self,
        remote: Remote,
        conversation: Conversation,
        folder: Path,
        progress: Progress,
        *,
        redial: Redial,
        streams: int = 3,
        mounts: bool = True,
        delta: DeltaMode = DeltaMode.AUTO,
        rate: LinkRate | None = None,
    ) -> None:
        """With `mounts` the pod mounts what other repositories hold when it is asked what one lacks."""
        self._remote = remote
        self._conversation = conversation
        self._progress = progress
        self.pull_host = ""
        """What the pod says of it with the first tag."""
        self.folder = folder
        self._redial = redial
        self._packed = anyio.Semaphore(PACKED_MAX)
        self._packers = anyio.Semaphore(PACKERS)
        self._streams = anyio.Semaphore(streams)
        self._questions: dict[str, _Question] = {}
        self._present: dict[tuple[str, Digest], int] = {}
        self._configs: set[tuple[str, Digest]] = set()
        """That are going to be wanted, and have not been asked for."""
        self._absent: set[tuple[str, Digest]] = set()
        """Those of them that the registry lacks."""
        self._waiting: dict[str, _BeforeTag] = {}
        self._tagged: dict[Reference, Descriptor] = {}
        self._has_worked = False
        self._mount = ("--mount",) if mounts else ()
        self._rate = rate or LinkRate(folder, "")
        self._deltas = LayerDeltas(folder, delta, self._base_for, self._rate)

    def announce(self, reference: Reference, config: ImageConfig) -> None:
        """Take note of an image's layers: some may go as recipes. The config is asked for along with them."""
        self._deltas.announce(reference, config)
        self._configs.add((reference.repository, config.descriptor.digest))

    async def blob_exists(self, repository: str, digest: Digest) -> int | None:
        """The blob's size in bytes; None when the repository does not hold it."""
        if (known := self._known_size(repository, digest)) is not None:
            return known
        if (repository, digest) in self._absent:
            return None
        question = self._questions.get(repository)
        if question is not None:
            question.digests[digest] = None
            await question.answered.wait()
        else:
            question = self._questions[repository] = _Question({digest: None})
            await self._ask(repository, question)
        # Without an answer the asker has failed, and its failure ends this task as well.
        return question.answer.get(digest) if question.answer is not None else None

    async def mount_blob(self, repository: str, digest: Digest, source_repository: str) -> bool:
        """False: the pod mounts what it can when it is asked what is missing."""
        return False

    async def begin_upload(self, repository: str) -> RemoteUpload:
        """Open a session; nothing is sent before it is committed."""
        return RemoteUpload(self, repository)

    async def put_blob(self, repository: str, open_reader: BlobOpener, progress: Progress) -> Measured:
        """Send a blob: pack it, then deliver it, unless the pod has made it of a recipe by then."""
        async with self._packed, AsyncExitStack() as stack, task_group() as tasks:
            rebuilding = None
            async with self._packers:
                reader = await stack.enter_async_context(open_reader())
                if reader.rewindable and reader.size is not None:
                    measured = await measure(reader)
                    part = reread_part(reader, measured)
                else:
                    packed = PackedBlob(self.folder)
                    stack.push_async_callback(packed.aclose)
                    delta = await stack.enter_async_context(self._deltas.comparing(repository, reader))
                    if delta is not None:
                        rebuilding = _Rebuilding(delta)
                        tasks.start_soon(self._rebuild, repository, rebuilding)
                    measured = await packed.write(reader)
                    if delta is not None:
                        delta.end()
                    part = packed.part(measured)
            if rebuilding is not None:
                await rebuilding.ended.wait()
                if rebuilding.digest == measured.digest:
                    self._present[repository, measured.digest] = measured.size
                    return replace(measured, sent_bytes=rebuilding.recipe_bytes)
            await self.deliver(repository, measured, part)
        return measured

    async def _base_for(self, reference: Reference, step: LayerStep) -> bytes:
        """Return what the pod says of a base for a layer."""
        content = step.encode()
        return await self._again(
            lambda: self._conversation.call("signature", "--", str(reference), stdin=Input.of(content))
        )

    async def _rebuild(self, repository: str, rebuilding: _Rebuilding) -> None:
        """Have the pod make a layer of its recipe, if there is one that pays; without a digest it is to go whole."""
        recipe = await rebuilding.delta.recipe()
        if recipe is not None:
            rebuilding.recipe_bytes = recipe.size
            rebuilding.digest = await self._rebuilt(repository, rebuilding.delta, recipe)
        rebuilding.ended.set()

    async def _rebuilt(self, repository: str, delta: LayerDelta, recipe: Recipe) -> Digest | None:
        digest: Digest | None = None

        async def attempt() -> None:
            nonlocal digest
            stdin = recipe_input(recipe)
            self._progress.bytes_to_send += stdin.size
            channel = self._channel(stdin.size)
            answer = await channel.call_json(*delta.arguments(repository), stdin=stdin, on_sent=self._count)
            digest = answer["digest"].digest()

        try:
            async with self._streams:
                await self._redial.run(attempt, has_worked=self._has_worked)
        except RemoteError as exc:
            if exc.temporary:
                raise
        return digest

    async def put_bytes(self, repository: str, content: bytes, progress: Progress | None = None) -> Digest:
        """Send a small blob: it waits for the tag."""
        digest = Digest.of(content)
        self._waits(repository).blobs[digest] = content_part(blob_path(digest), content)
        return digest

    async def head_manifest(self, reference: Reference) -> Descriptor | None:
        """What the registry answered when it was tagged here; None for a manifest that it does not have."""
        if reference in self._tagged:
            return self._tagged[reference]
        try:
            return (await self.get_manifest(reference)).descriptor()
        except NotFound:
            return None

    async def get_manifest(self, reference: Reference) -> Manifest:
        """A manifest's bytes; NotFound when the registry has none."""
        waiting = self._waiting.get(reference.repository)
        if waiting is not None and reference.digest in waiting.manifests:
            return waiting.manifests[reference.digest]
        try:
            content = await self._again(lambda: self._conversation.call("inspect", "--raw", "--", str(reference)))
        except RemoteError as exc:
            if exc.exit_code == NOT_FOUND:
                raise NotFound("GET", str(reference), 404) from exc
            raise
        return Manifest.parse(content, where=str(reference))

    async def put_manifest(self, reference: Reference, manifest: Manifest) -> Digest:
        """Store a manifest: one without a tag waits, and goes with the one that has it."""
        waiting = self._waits(reference.repository)
        if reference.tag is None:
            waiting.manifests[manifest.digest] = manifest
            return manifest.digest
        parts = image_parts(
            manifest,
            reference.tag,
            manifests=waiting.manifests.values(),
            companions=waiting.companions,
            blobs=waiting.blobs.values(),
        )
        answer = await self._again(lambda: self._send(self._conversation, "receive", "--", str(reference), parts=parts))
        digest = answer["digest"].digest()
        self.pull_host = (answer["pull_reference"].text_or_none() or "").partition("/")[0]
        media_type = answer["media_type"].text_or_none() or manifest.media_type
        self._tagged[reference] = Descriptor(media_type=media_type, digest=digest, size=manifest.size)
        self._arrived(reference.repository, waiting.blobs.values())
        del self._waiting[reference.repository]
        return digest

    async def put_companion(self, reference: Reference, manifest: Manifest) -> Digest:
        """Store what speaks of the image that is tagged next: it goes with that one, and is confirmed there."""
        assert reference.tag is not None
        self._waits(reference.repository).companions[reference.tag] = manifest
        self._tagged[reference] = manifest.descriptor()
        return manifest.digest

    async def deliver(self, repository: str, measured: Measured, part: ArchivePart) -> None:
        """Bring a packed blob to the registry, or nearer to it."""
        if measured.size >= SMALL_BYTES:
            await self._deliver_blobs(repository, {measured.digest: part})
            return
        content = b"".join([bytes(piece) async for piece in part.open_pieces()])
        waiting = self._waits(repository)
        waiting.blobs[measured.digest] = content_part(part.path, content)
        if waiting.blob_bytes > SMALL_TOTAL_BYTES:
            blobs, waiting.blobs = waiting.blobs, {}
            await self._deliver_blobs(repository, blobs)

    async def _deliver_blobs(self, repository: str, blobs: dict[Digest, ArchivePart]) -> None:
        attempts = 0
        left = blobs

        async def attempt() -> None:
            nonlocal attempts, left
            attempts += 1
            if attempts > 1:
                self._progress.retries["unreachable"] += 1
                present = await self._missing(repository, list(left))
                left = {digest: part for digest, part in left.items() if digest not in present}
            if left:
                started = anyio.current_time()
                size = sum(part.size for part in left.values())
                parts = list(left.values())
                await self._send(self._channel(size), "receive", "--blobs", "--", repository, parts=parts)
                self._rate.note(size, anyio.current_time() - started)

        async with self._streams:
            await self._redial.run(attempt, progress=lambda: -len(left), has_worked=self._has_worked)
        self._arrived(repository, blobs.values())

    def _channel(self, size: int) -> Remote | Conversation:
        """Return the exec that is open, if it is free: another takes some round trips, and a program's start."""
        return self._conversation if size <= SHORT_BYTES and self._conversation.is_idle else self._remote

    async def _send(self, to: Remote | Conversation, *arguments: str, parts: list[ArchivePart]) -> Document:
        stdin = pack(parts)
        self._progress.bytes_to_send += stdin.size
        return await to.call_json(*arguments, stdin=stdin, on_sent=self._count)

    def _count(self, size: int) -> None:
        self._progress.bytes_sent += size

    async def _ask(self, repository: str, question: _Question) -> None:
        try:
            await self._conversation.open()
            asked = 0
            while asked < len(question.digests):
                asked = len(question.digests)
                await anyio.sleep(ASK_SECONDS)
            del self._questions[repository]
            configs = {key for key in self._configs if key[0] == repository}
            self._configs -= configs
            digests = list(question.digests | {digest: None for _, digest in configs})
            question.answer = await self._again(lambda: self._missing(repository, digests))
            self._present |= {(repository, digest): size for digest, size in question.answer.items()}
            self._absent |= configs - self._present.keys()
        finally:
            if self._questions.get(repository) is question:
                del self._questions[repository]
            question.answered.set()

    async def _missing(self, repository: str, digests: list[Digest]) -> dict[Digest, int]:
        """The sizes of those blobs that the repository holds."""
        lines = "".join(f"{digest}\n" for digest in digests).encode()
        answer = await self._conversation.call_json(
            "missing", "--json", *self._mount, "--", repository, stdin=Input.of(lines)
        )
        present = answer["present"]
        sizes = present.fields()
        return {digest: present[str(digest)].count() for digest in digests if str(digest) in sizes}

    async def _again(self, work: Callable[[], Awaitable[T]]) -> T:
        result = await self._redial.run(work, has_worked=self._has_worked)
        self._has_worked = True
        return result

    def _known_size(self, repository: str, digest: Digest) -> int | None:
        waiting = self._waiting.get(repository)
        if waiting is not None and digest in waiting.blobs:
            return waiting.blobs[digest].size
        return self._present.get((repository, digest))

    def _waits(self, repository: str) -> _BeforeTag:
        return self._waiting.setdefault(repository, _BeforeTag())

    def _arrived(self, repository: str, parts: Iterable[ArchivePart]) -> None:
        for part in parts:
            algorithm, hexadecimal = part.path.split("/")[1:]
            self._present[repository, Digest(algorithm, hexadecimal)] = part.size


class RemoteUpload:
    """A blob from a source that comes by once: it is packed when it does, and sent when it is committed."""

    def __init__(self, registry: RemoteRegistry, repository: str) -> None:
        self._registry = registry
        self._repository = repository
        self._packed: PackedBlob | None = None
        self._measured: Measured | None = None

    async def send(self, reader: BlobReader, progress: Progress) -> Measured:
        """Pack all that the reader gives."""
        self._packed = PackedBlob(self._registry.folder)
        self._measured = await self._packed.write(reader)
        return self._measured

    async def commit(self, digest: Digest) -> None:
        """Send what was packed."""
        if self._packed is None or self._measured is None or digest != self._measured.digest:
            raise RuntimeError("committed before it was sent")
        part = self._packed.part(self._measured)
        await self._registry.deliver(self._repository, self._measured, part)
        await self.cancel()

    async def cancel(self) -> None:
        """Give up what was packed."""
        if self._packed is not None:
            await self._packed.aclose()

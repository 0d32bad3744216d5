"""The sender's side of deltas: which layers go as recipes, and the recipes.

For a layer that is compressed here, the pod is asked for the layer of the same step of the last image. While one thread
reads the plain layer and compresses it, another compares it with that one, and writes the recipe. If that pays, the pod
makes the layer of it, and its digest has to be the one that came out here. Nothing that goes wrong with a delta ends a
push, and nothing is lost by one that does not pay: the layer is compressed, and goes whole.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO, Final

import anyio
import anyio.from_thread
import orjson

from registry_spooler.aio import in_thread, in_worker
from registry_spooler.archive.member_blob import MemberReader
from registry_spooler.delta.base import LayerStep
from registry_spooler.delta.recipe import Recipe, RecipeWriter
from registry_spooler.delta.signature import Signature
from registry_spooler.errors import DeltaError
from registry_spooler.kubernetes.cluster_errors import RemoteError
from registry_spooler.kubernetes.remote_session import Input
from registry_spooler.kubernetes.transfer.link_rate import LinkRate
from registry_spooler.kubernetes.wire import Document, UnreadableAnswer
from registry_spooler.oci.blob import BlobReader
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.image_config import ImageConfig
from registry_spooler.oci.reference import Reference

if TYPE_CHECKING:
    from typing_extensions import Buffer

PLAIN_MIN_BYTES: Final = 1 << 20
"""A smaller layer is sent sooner than the pod is asked about it."""
_AHEAD_PIECES: Final = 4
"""Of a plain layer, of up to 1 MiB each: how far comparing may be behind compressing."""


class DeltaMode(enum.Enum):
    """Which layers go as recipes: those where it saves half and the link is not too fast for it, none, or all."""

    AUTO = "auto"
    NEVER = "never"
    ALWAYS = "always"


AskForBase = Callable[[Reference, LayerStep], Awaitable[bytes]]
"""Asks the pod for a layer to compare with; its answer is that of `registry-client signature`."""


@dataclass(frozen=True, slots=True)
class OfferedBase:
    """A layer in the registry that the pod has offered. `signature_bytes` is what it took to tell."""

    digest: Digest
    size: int
    signature: Signature
    signature_bytes: int


class LayerDeltas:
    """What is known of the images on their way, and the bases for their layers."""

    def __init__(self, folder: Path, mode: DeltaMode, ask: AskForBase, rate: LinkRate) -> None:
        self.mode = mode
        self._folder = folder
        self._ask = ask
        self._rate = rate
        self._steps: dict[tuple[str, Digest], tuple[Reference, LayerStep]] = {}

    def announce(self, reference: Reference, config: ImageConfig) -> None:
        """Take note of an image's layers."""
        steps = config.steps or ("",) * len(config.diff_ids)
        platform = str(config.platform) if config.platform is not None else ""
        for position, (diff_id, created_by) in enumerate(zip(config.diff_ids, steps, strict=True)):
            step = LayerStep(position=position, created_by=created_by, platform=platform)
            self._steps.setdefault((reference.repository, diff_id), (reference, step))

    @asynccontextmanager
    async def comparing(self, repository: str, reader: BlobReader) -> AsyncGenerator[LayerDelta | None]:
        """Compare what `reader` gives, for the time of an `async with`; None where there is nothing to compare with."""
        base = await self._base(repository, reader)
        if base is None or not isinstance(reader, MemberReader):
            yield None
            return
        with ExitStack() as files:
            delta = await in_thread(_begin, base, self._folder, self.mode, reader, files)
            if delta is not None:
                reader.show_plain(delta.show)
            yield delta

    async def _base(self, repository: str, reader: BlobReader) -> OfferedBase | None:
        if self.mode is DeltaMode.NEVER or not isinstance(reader, MemberReader):
            return None
        if self.mode is DeltaMode.AUTO and self._rate.is_fast:
            return None
        diff_id = reader.compressed_diff_id
        known = self._steps.get((repository, diff_id)) if diff_id is not None else None
        if known is None or reader.member_bytes < PLAIN_MIN_BYTES:
            return None
        try:
            return await in_worker(_read_base, await self._ask(*known))
        except RemoteError as exc:
            if exc.temporary:
                raise
            if exc.exit_code == _USAGE:  # a pod of another version
                self.mode = DeltaMode.NEVER
        except (UnreadableAnswer, DeltaError):
            pass
        return None


_USAGE: Final = 2


def _read_base(answer: bytes) -> OfferedBase | None:
    """Read a line of JSON, and a signature behind it; UnreadableAnswer, DeltaError."""
    line, _, content = answer.partition(b"\n")
    try:
        document = Document(orjson.loads(line), "signature")
    except orjson.JSONDecodeError as exc:
        raise UnreadableAnswer("signature", "JSON") from exc
    if document["base"].value is None:
        return None
    return OfferedBase(document["base"].digest(), document["size"].count(), Signature.decode(content), len(content))


def _begin(
    base: OfferedBase, folder: Path, mode: DeltaMode, reader: MemberReader, files: ExitStack
) -> LayerDelta | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        literals = files.enter_context(TemporaryFile(dir=folder))  # noqa: SIM115 - the stack closes it
        compressed = files.enter_context(TemporaryFile(dir=folder))  # noqa: SIM115 - the stack closes it
    except OSError:
        return None
    writer = RecipeWriter(base.signature, literals, folder)
    files.callback(writer.close)
    return LayerDelta(base, writer, compressed, mode, reader)


class LayerDelta:
    """One layer's recipe, written by the task that calls `recipe` of what another thread shows it."""

    def __init__(
        self, base: OfferedBase, writer: RecipeWriter, output: BinaryIO, mode: DeltaMode, reader: MemberReader
    ) -> None:
        self._base = base
        self._writer = writer
        self._output = output
        self._mode = mode
        self._reader = reader
        self._send, self._receive = anyio.create_memory_object_stream["Buffer"](_AHEAD_PIECES)

    def show(self, piece: Buffer) -> None:
        """Hand over the next bytes of the plain layer, in a thread; waits while too much is ahead."""
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # nobody wants more
            anyio.from_thread.run(self._send.send, piece)

    def end(self) -> None:
        """Say that this was the whole layer."""
        self._send.close()

    async def recipe(self) -> Recipe | None:
        """Return the recipe, if it is worth it, when the layer has ended."""
        with self._receive:
            try:
                async for piece in self._receive:
                    await in_worker(self._writer.feed, piece)
                    if self._is_too_new():
                        return None
            except OSError:
                return None
        return await in_worker(self._finish)

    def arguments(self, repository: str) -> tuple[str, ...]:
        """Return the command that makes the layer of the recipe."""
        return (
            *("rebuild", "--base", str(self._base.digest), "--diff-id", str(self._reader.compressed_diff_id)),
            *("--compression", self._reader.compression.value, "--", repository),
        )

    def _is_too_new(self) -> bool:
        expected = max(self._base.signature.layer_bytes, self._writer.layer_bytes)
        return self._mode is DeltaMode.AUTO and 2 * self._writer.literal_bytes > expected

    def _finish(self) -> Recipe | None:
        try:
            recipe = self._writer.finish(self._output)
        except OSError:
            return None
        if recipe is None or self._mode is DeltaMode.ALWAYS:
            return recipe
        # The layer is still being compressed: it will shrink about as the base did.
        saved = self._base.size * self._writer.layer_bytes // max(self._base.signature.layer_bytes, 1)
        return recipe if 2 * (recipe.size + self._base.signature_bytes) <= saved else None


def recipe_input(recipe: Recipe) -> Input:
    """Return a recipe as what a command reads."""

    async def pieces() -> AsyncGenerator[Buffer]:
        left = recipe.pieces()
        while piece := await in_thread(next, left, b""):
            yield piece

    return Input(recipe.size, pieces())

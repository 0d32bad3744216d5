"""Delivering what the chosen images need: by offset from a plain tar, or from what a stream brought by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Final

import anyio

from registry_spooler.archive import IndexedArchive, Member, MemberOpener, Source, StreamedArchive, open_archive
from registry_spooler.blob import PIECE_BYTES
from registry_spooler.errors import ArchiveError, UploadLost
from registry_spooler.progress import Progress
from registry_spooler.push.delivery import Delivery
from registry_spooler.push.need import Need
from registry_spooler.push.stream import Sessions, guess_wanted
from registry_spooler.push.target import Target
from registry_spooler.push.watched import watched
from registry_spooler.tasks import task_group

PASSES_MAX: Final = 4
"""Further readings of one stream, before the push is given up for now: each is what a broken connection cost."""


async def deliver_indexed(
    targets: Sequence[Target],
    archive: IndexedArchive,
    progress: Progress,
    lanes: anyio.Semaphore,
    *,
    transfers: int,
    inflate: bool,
    hashes: bool,
) -> None:
    """Send what the registry lacks, largest first, `transfers` blobs at once.

    `lanes` bounds how many there are in all pushes of the process, and with that their memory. The images come one
    after another: the second then finds what the first brought.
    """
    for target in targets:
        needs = sorted(
            dict.fromkeys(need for need in target.needs if need.foreign is None), key=lambda need: -need.size
        )
        queue = iter(needs)

        async def work(delivery: Delivery, queue: Iterator[Need]) -> None:
            for need in queue:
                async with lanes:
                    await _deliver_one(need, delivery, archive, progress, inflate=inflate, hashes=hashes)

        async with task_group() as tasks:
            for _ in range(min(len(needs), transfers)):
                tasks.start_soon(work, target.delivery, queue)


async def _deliver_one(
    need: Need, delivery: Delivery, archive: IndexedArchive, progress: Progress, *, inflate: bool, hashes: bool
) -> None:
    if await delivery.find(need) is not None:
        progress.bytes_done += need.size
        return
    if need.member is None:
        raise archive.missing(f"the blob {need.likely_digest}")
    opener = _opener(need, need.member, archive, inflate=inflate, hashes=hashes)
    await delivery.send(need, watched(opener, progress))


def _opener(need: Need, member: Member, archive: IndexedArchive, *, inflate: bool, hashes: bool) -> MemberOpener:
    """The blob, hashed while it is read; or, when nobody asks for more than digests, by the registry alone.

    A registry takes nothing under a digest that does not fit. What it has refused is opened again, and hashed then, so
    that the error says what is wrong. Small blobs are always hashed: they may go in one PUT, and many registries
    refuse that for reasons of their own.
    """
    blob = partial(archive.blob, member, compression=need.compression, expect=need.expect, inflate=inflate)
    if inflate or hashes or member.size <= PIECE_BYTES:
        return blob()
    openers = chain([blob(hashes=False)], repeat(blob()))
    return lambda: next(openers)()


async def deliver_streamed(
    targets: Sequence[Target], source: Source, archive: StreamedArchive, sessions: Sessions
) -> None:
    """Make blobs of what the sessions received, and take what is still lacking from further passes.

    A pass that guessed right and lost nothing leaves nothing lacking, so that usually there is no second one.
    """
    for _ in range(PASSES_MAX):
        lacking = [item for target in targets for item in await _settle(target, archive, sessions)]
        if not lacking:
            return
        if not archive.rereadable:
            raise _cannot_send(lacking, sessions)
        # The first repository that lacks a member gets it; the others mount it from there.
        wanted = {need.member: (delivery, need) for delivery, need in reversed(lacking) if need.member is not None}
        async with open_archive(source) as again:
            assert isinstance(again, StreamedArchive)
            await sessions.receive(again, guess_wanted(wanted), keeps_documents=False)
    raise UploadLost(targets[0].repository, f"{len(lacking)} of its blobs were lost {PASSES_MAX} times")


def _cannot_send(lacking: Sequence[tuple[Delivery, Need]], sessions: Sessions) -> UploadLost | ArchiveError:
    """Why a pipe ends here: an upload was lost, which another try may not lose, or the first pass guessed wrong."""
    for _, need in lacking:
        if need.member is not None and need.member not in sessions.lost:
            return ArchiveError(
                "what it is shows only at the end of the archive, and a pipe cannot be read again; push the archive as "
                "a file",
                where=need.member.path,
            )
    return UploadLost(lacking[0][0].repository, "the archive came through a pipe and cannot be read again")


async def _settle(target: Target, archive: StreamedArchive, sessions: Sessions) -> list[tuple[Delivery, Need]]:
    """Commit, find or send from memory what the target needs; what is left is lacking."""
    delivery = target.delivery
    lacking = []
    for need in dict.fromkeys(need for need in target.needs if need.foreign is None):
        if delivery.delivered(need) or await sessions.commit(need, delivery) or await delivery.find(need):
            continue
        content = await archive.content(need.expect.digest) if need.expect.digest is not None else None
        if content is not None:
            await delivery.send_content(need, content)
        elif need.member is None:
            raise archive.missing(f"the blob {need.likely_digest}")
        else:
            lacking.append((delivery, need))
    return lacking

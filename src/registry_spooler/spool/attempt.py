"""One attempt at one file, from its lock to what became of it.

lock the repository → open → is anybody still writing? → the handler → receipt → take the file away
                                                           ↘ error: deferred, settling, or into `.failed/`

A bundle locks the whole spool instead.

The order is the promise: nothing is removed before the handler has returned and the receipt is on the disk. What
happens after the handler is not cancelled half-way.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from registry_spooler.aio import foremost, in_thread
from registry_spooler.errors import InvalidFileName, RegistryError, SpoolerDied, SpoolerError
from registry_spooler.folder import Folder
from registry_spooler.progress import Progress
from registry_spooler.spool import log
from registry_spooler.spool.directory.deaths import DEATHS_MAX, Deaths, begin_work, deaths_over, end_work, forget_deaths
from registry_spooler.spool.directory.files import Identity, OddEntry, OpenedFile, Writers, look_for_writers, open_file
from registry_spooler.spool.directory.locks import Lock, try_lock, try_lock_spool
from registry_spooler.spool.directory.workdir import Aside, WorkDir
from registry_spooler.spool.filename import Action, FileName
from registry_spooler.spool.records import (
    clear_error,
    failure_document,
    receipt_document,
    store_failure,
    trim_receipts,
    write_receipt,
)
from registry_spooler.spool.removal import Taken, take_away
from registry_spooler.spool.scheduling.job import (
    Arrival,
    Entry,
    Handler,
    Job,
    Pushed,
    Reason,
    Settling,
)
from registry_spooler.spool.scheduling.outcome import (
    Deferred,
    Done,
    Ending,
    Failed,
    LockedElsewhere,
    Missing,
    NotAFile,
    Suspected,
    deferral,
    disk_trouble,
    os_reason,
)
from registry_spooler.spool.settings import SpoolSettings
from registry_spooler.spool.state import SpoolState


class JobLocks:
    """One attempt's locks. All methods block for a moment; OSError when the spool cannot be written to."""

    def __init__(self, entry: Entry, workdir: WorkDir) -> None:
        self._entry = entry
        self._workdir = workdir
        self._spool: int | None = None
        self._repository: Lock | None = None
        self._job = ""

    def begin(self) -> bool:
        """Return whether both locks were free; nobody waits for a lock who holds one."""
        self._workdir.layout.check()
        return self._workdir.in_need(self._take)

    def begin_work(self, content: Identity) -> Deaths:
        """Remember on the disk that this content is worked on. Return who has died over it."""
        self._job = begin_work(self._workdir.folder, self._entry.name, content.mark, alone=self._entry.alone)
        return deaths_over(self._workdir.layout.work, content.mark)

    def end(self) -> None:
        """Work on it no longer, and let all locks go."""
        if self._job:
            end_work(self._workdir.folder, self._job)
        if self._repository is not None:
            self._repository.release()
        if self._spool is not None:
            os.close(self._spool)

    def _take(self) -> bool:
        if self._spool is None:
            self._spool = try_lock_spool(self._workdir.layout.work, exclusive=self._entry.is_bundle)
        if self._spool is None or self._entry.is_bundle:
            return self._spool is not None
        self._repository = try_lock(self._workdir.layout.locks, self._entry.repository)
        return self._repository is not None


_CHANGED: Final = Deferred(reason=Reason.SOURCE, error="the file changed during its push and is pushed anew")
_WRITING: Final = Deferred(reason=Reason.WRITING, error="the file is still open for writing")


@dataclass(slots=True)
class Attempt:
    """One attempt to do what a file asks for; `run` once."""

    entry: Entry
    workdir: WorkDir
    handler: Handler
    settings: SpoolSettings
    state: SpoolState
    _file: OpenedFile = field(init=False)
    _writers: Writers | None = None
    """Who writes to the file; None where that does not matter."""

    async def run(self) -> Ending:
        """Try it. Nothing but a cancellation is raised."""
        locks = JobLocks(self.entry, self.workdir)
        try:
            return await _begin(locks) or await self._open(locks)
        except Exception as exc:  # noqa: BLE001 - an error of our own must neither stop the spool nor lose the file
            return self._crashed(exc)
        finally:
            with anyio.CancelScope(shield=True):
                await in_thread(locks.end)

    async def _open(self, locks: JobLocks) -> Ending:
        try:
            self._file = await in_thread(_open_entry, self.entry, self.workdir)
        except FileNotFoundError:
            return Missing()
        except OddEntry as odd:
            return NotAFile(odd.kind)
        except OSError as exc:
            return _unreadable(exc)
        try:
            await in_thread(self._examine, locks)
            return await self._decide()
        finally:
            self._file.close()

    def _examine(self, locks: JobLocks) -> None:
        """Note on the disk that the file is worked on, and look for writers; blocks."""
        self.entry.deaths = locks.begin_work(self._file.identity)
        if self.entry.action is Action.PUSH:
            self._writers = look_for_writers(self._file.fd)

    async def _decide(self) -> Ending:
        """Do what is left to be done, given what is known of this content from earlier attempts."""
        entry, content = self.entry, self._file.identity
        if self._writers is Writers.SOME:
            return _WRITING
        if isinstance(entry.parsed, InvalidFileName):
            entry.attempts += 1
            return await self._fail(entry.parsed)
        if entry.pushed is not None and entry.pushed.identity == content:
            return await self._finish(entry.pushed)
        if entry.settling is not None and entry.settling.identity == content:
            remaining = entry.settling.until - time.monotonic()
            if remaining > 0:
                return _settling(entry.settling.error, remaining)
            return await self._fail(entry.settling.error)
        if self._writers is Writers.UNKNOWN and (obstacle := self._wait_until_still()) is not None:
            return obstacle
        if entry.deaths.alone:
            return await self._fail(SpoolerDied(entry.deaths.count))
        if entry.deaths.count >= DEATHS_MAX and not entry.alone:
            return Suspected()
        return await self._handle(entry.parsed)

    def _wait_until_still(self) -> Deferred | None:
        """Writers cannot be seen: wait until the content has lain still, unless an event has told of its end."""
        entry = self.entry
        if not entry.identity.same_content(self._file.identity):
            if not entry.is_aside:
                return _CHANGED  # since the queue heard of it
            entry.identity, entry.still_since = self._file.identity, time.monotonic()
        remaining = entry.still_since + self.settings.settle_seconds - time.monotonic()
        return None if self._is_announced or remaining <= 0 else _resting("is pushed", remaining)

    @property
    def _is_announced(self) -> bool:
        """Return whether an event has told that somebody is done with this very content."""
        entry = self.entry
        return entry.arrival is not Arrival.FOUND and entry.identity.same_content(self._file.identity)

    async def _handle(self, filename: FileName) -> Ending:
        entry, file = self.entry, self._file
        entry.attempts += 1
        opened_at, started = time.monotonic(), time.time()
        progress = Progress(bytes_total=file.size)
        self.state.job_started(entry, progress, started)
        log.started(entry, file.size)
        try:
            results = await self.handler(Job(filename=filename, attempt=entry.attempts), file, progress)
        except Exception as exc:  # noqa: BLE001 - sorted by kind in there; none of them may stop the spool
            return await self._judge(foremost(exc), opened_at)
        entry.pushed = Pushed(identity=file.identity, results=results, started=started, opened_at=opened_at)
        return await self._finish(entry.pushed)

    async def _judge(self, error: BaseException, opened_at: float) -> Ending:
        """Defer the file, or fail it for good, for what the handler has raised."""
        if isinstance(error, OSError) and not isinstance(error, TimeoutError | ConnectionError):
            return _unreadable(error)
        if isinstance(error, SpoolerError) and error.temporary:
            return deferral(error)
        if not isinstance(error, SpoolerError):
            return self._crashed(error)
        if not self._file.is_unchanged():
            return _CHANGED
        if getattr(error, "incomplete", False) and self.entry.arrival is not Arrival.RENAMED:
            until = opened_at + self.settings.settle_seconds
            self.entry.settling = Settling(self._file.identity, until, error)
            return _settling(error, until - time.monotonic())
        return await self._fail(error)

    async def _finish(self, pushed: Pushed) -> Ending:
        # A close tells of one writer; a rename of all.
        is_complete = self.entry.arrival is Arrival.RENAMED and self._is_announced
        if self._writers is Writers.UNKNOWN and not is_complete:
            remaining = pushed.opened_at + self.settings.settle_seconds - time.monotonic()
            if remaining > 0:
                return _resting("is removed", remaining)
        try:
            with anyio.CancelScope(shield=True):
                ending = await in_thread(self._conclude, pushed)
        except OSError as exc:
            return disk_trouble("the receipt cannot be written, or the file not be removed", exc)
        return ending

    def _conclude(self, pushed: Pushed) -> Done | Deferred:
        """Write the receipt, then remove the file; blocks."""
        entry, workdir, file = self.entry, self.workdir, self._file
        if not file.is_unchanged():
            return _CHANGED
        receipt = receipt_document(
            entry.name,
            entry.action.value,
            pushed.results,
            is_bundle=entry.reference is None,
            attempts=entry.attempts,
            started=pushed.started,
            finished=time.time(),
        )
        write_receipt(workdir, entry.name, receipt)
        forget_deaths(workdir.layout.work, file.identity.mark)
        taken = take_away(file, workdir, Aside.remove, done=True, check_writers=entry.action is Action.PUSH)
        if taken not in {Taken.REMOVED, Taken.GONE}:
            return _not_taken(taken)
        return Done(pushed.results, receipt, self._tidy())

    def _tidy(self) -> bool:
        """Do what may as well fail; return whether the job has made an earlier failure good."""
        with suppress(OSError):
            trim_receipts(self.workdir.layout.receipts, self.settings.receipts_kept)
            self.workdir.keep_reserve()
        with suppress(OSError):
            return clear_error(self.workdir.layout.failed, self.entry.name)
        return False

    async def _fail(self, error: Exception) -> Ending:
        record = failure_document(
            self.entry.name,
            self.entry.action.value,
            str(self.entry.reference) if self.entry.reference else None,
            error=_sentence(error),
            detail=error.detail if isinstance(error, SpoolerError) else repr(error),
            attempts=self.entry.attempts,
            time=time.time(),
        )
        try:
            with anyio.CancelScope(shield=True):
                taken = await in_thread(self._move_to_failed, record)
        except OSError as exc:
            return disk_trouble(f"{_sentence(error)}; and the file cannot be moved to .failed", exc)
        if taken is Taken.GONE:
            return Missing()
        return Failed(record, isinstance(error, RegistryError)) if taken is Taken.REMOVED else _not_taken(taken)

    def _move_to_failed(self, record: dict[str, Any]) -> Taken:
        forget_deaths(self.workdir.layout.work, self._file.identity.mark)
        return take_away(
            self._file,
            self.workdir,
            lambda aside: store_failure(self.workdir, aside, record),
            done=False,
            check_writers=self.entry.action is Action.PUSH,
        )

    def _crashed(self, error: BaseException) -> Deferred:
        """Defer the file: an error that nobody foresaw is not its fault."""
        ending = Deferred(reason=Reason.INTERNAL, error=_sentence(error))
        log.crashed(self.entry, ending.error, error)
        return ending


async def _begin(locks: JobLocks) -> LockedElsewhere | Deferred | None:
    """Take the locks; return what is in the way, if anything is."""
    try:
        if await in_thread(locks.begin):
            return None
        return LockedElsewhere()
    except OSError as exc:
        error = f"a lock in the spool directory cannot be taken: {os_reason(exc)}"
        return Deferred(reason=Reason.SPOOL, error=error, is_shared=True)


def _open_entry(entry: Entry, workdir: WorkDir) -> OpenedFile:
    folder = entry.aside.folder if entry.aside is not None else workdir.layout.directory
    try:
        file = open_file(folder, entry.name, must_read=entry.action is Action.PUSH)
    except PermissionError as exc:
        status = folder.status(entry.name)
        whose = f"it belongs to user {status.st_uid} and group {status.st_gid}, mode {status.st_mode & 0o7777:o}"
        raise PermissionError(exc.errno, f"{os_reason(exc)} ({whose}; the spooler is user {os.geteuid()})") from exc
    if entry.action is Action.PUSH and _is_linked_by_others(file, folder):
        file.close()
        raise PermissionError(
            errno.EPERM, "it has another name elsewhere (a hard link), and may be another user's; put a copy there"
        )
    return file


def _is_linked_by_others(file: OpenedFile, folder: Folder) -> bool:
    """Return whether somebody else may have made a link to the file, which may be one that they cannot read."""
    status, own = os.fstat(file.fd), os.geteuid()
    if status.st_nlink == 1 or (status.st_uid == own and own != 0):
        return False
    where = os.fstat(folder.fd)
    return where.st_uid not in {0, own} or bool(where.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _not_taken(taken: Taken) -> Deferred:
    return _WRITING if taken is Taken.WRITING else _CHANGED


def _unreadable(error: OSError) -> Deferred:
    return Deferred(reason=Reason.FILE, error=f"the file cannot be read: {os_reason(error)}")


def _settling(error: Exception, remaining_seconds: float) -> Deferred:
    return Deferred(
        reason=Reason.SETTLING,
        error=f"the file seems to be incomplete, and may yet grow: {error}",
        delay_seconds=max(0.0, remaining_seconds),
    )


def _resting(what: str, remaining_seconds: float) -> Deferred:
    return Deferred(
        reason=Reason.SETTLING,
        error=f"nobody here can see who writes to the file: it {what} when it has lain unchanged",
        delay_seconds=remaining_seconds,
        keeps_place=True,  # most such files are complete, and an older one must not be pushed over a newer one
    )


def _sentence(error: BaseException) -> str:
    return str(error) if isinstance(error, SpoolerError) else f"internal error: {type(error).__name__}: {error}"

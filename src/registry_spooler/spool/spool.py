"""The spool: the owner of the queue. It starts jobs when it is their turn, and does what their endings ask for.

Flow: `_take` tells the queue what the monitor has seen; `_dispatch` starts what the queue says; an attempt returns how
it ended; `_apply` tells the queue, the state and the log. All of that is done in the event loop's thread.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import anyio.lowlevel

from registry_spooler.errors import SpoolerError
from registry_spooler.progress import ImageResult
from registry_spooler.spool import log
from registry_spooler.spool.attempt import Attempt
from registry_spooler.spool.directory.files import Identity
from registry_spooler.spool.directory.workdir import WorkDir
from registry_spooler.spool.filename import display
from registry_spooler.spool.housekeeping import orphans
from registry_spooler.spool.monitor import DirectoryMonitor, Listing
from registry_spooler.spool.scheduling.job import Arrival, Entry, Handler, JobEnd, Outcome, Phase, Reason
from registry_spooler.spool.scheduling.outcome import (
    ANSWERED,
    WITHOUT_ANSWER,
    Deferred,
    Done,
    Ending,
    Failed,
    GaveWay,
    LockedElsewhere,
    Suspected,
)
from registry_spooler.spool.scheduling.queue import Queue
from registry_spooler.spool.settings import SpoolSettings
from registry_spooler.spool.state import SpoolState

ELSEWHERE_SECONDS: Final = (0.3, 1.0)
"""When to try a repository again that another spooler works on: soon enough to take over a dead one's work."""
_AT_ONCE: Final = 500
"""So many files are taken into the queue before other tasks get the event loop."""

PING_SECONDS: Final = 10.0
"""For the registry to answer a ping."""

Ping = Callable[[], Awaitable[object]]
"""Returns when the registry answers as one does and takes our login; raises a SpoolerError when it does not."""


class Spool:
    """One spool directory, worked through by one process. Opens nothing before `run`."""

    def __init__(self, settings: SpoolSettings) -> None:
        self._settings = settings
        self._queue = Queue(settings.jobs_at_once)
        self._news = anyio.Event()
        self._stopping = False
        self._ping: Ping | None = None
        self._ping_crash: type[Exception] | None = None
        self._scopes: dict[Entry, anyio.CancelScope] = {}
        self.state = SpoolState(self._queue)
        self._monitor = DirectoryMonitor(settings, self.state, self._take)
        self._housekeeper = self._monitor.housekeeper

    def stop(self) -> None:
        """Take no new work; `run` returns when the running jobs have ended, or their grace has."""
        self._stopping = True
        self._wake()

    async def run(self, handler: Handler, ping: Ping | None = None) -> None:
        """Work until `stop`. Trouble with files, directory or registry is waited for, not raised. To be called once.

        `ping` asks whether the registry answers, so that no file has to be tried to find that out.
        """
        self._ping = ping
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._monitor.run)
                await self._dispatch(handler)
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                self._housekeeper.retire()
                await self._housekeeper.close_retired()

    async def _dispatch(self, handler: Handler) -> None:
        async with anyio.create_task_group() as jobs:
            while not self._stopping:
                if (workdir := self._housekeeper.workdir) is not None:
                    for entry in self._queue.start_next(time.monotonic()):
                        jobs.start_soon(self._do, entry, workdir, handler)
                    if self._ping is not None and self._queue.wants_ping(time.monotonic()):
                        jobs.start_soon(self._ask, self._ping)
                    if (overdue := self._queue.give_way(time.monotonic())) is not None and overdue in self._scopes:
                        self._scopes[overdue].cancel()
                await self._wait_for_news(until=self._queue.next_due(time.monotonic()) if workdir is not None else None)
            await self._housekeeper.forgive()
            with anyio.move_on_after(self._settings.shutdown_grace_seconds):
                while self._queue.count(Phase.RUNNING):
                    await self._wait_for_news(until=None)
            jobs.cancel_scope.cancel()

    async def _ask(self, ping: Ping) -> None:
        """Ask whether the registry answers; whatever goes wrong with that says that it does not."""
        is_up = False
        try:
            with anyio.move_on_after(PING_SECONDS):
                await ping()
                is_up = True
        except SpoolerError:
            pass
        except Exception as exc:  # noqa: BLE001 - no error that nobody foresaw may end the spool
            if self._ping_crash is not type(exc):
                log.ping_crashed(exc)
            self._ping_crash = type(exc)
        now = time.monotonic()
        delay = self._settings.backoff.delay_seconds(self._queue.shared_failures)
        self._queue.pinged(now, is_up=is_up, until=now + delay, next_try=time.time() + delay)
        self._wake()

    async def _wait_for_news(self, *, until: float | None) -> None:
        with anyio.move_on_after(None if until is None else max(0.0, until - time.monotonic())):
            await self._news.wait()
        self._news = anyio.Event()

    def _wake(self) -> None:
        self._news.set()

    async def _do(self, entry: Entry, workdir: WorkDir, handler: Handler) -> None:
        """Make one attempt, unless it has to give way to others, and apply how it ended."""
        began = time.monotonic()
        ending: Ending = GaveWay()
        try:
            with anyio.CancelScope() as self._scopes[entry]:
                try:
                    ending = await Attempt(entry, workdir, handler, self._settings, self.state).run()
                finally:
                    del self._scopes[entry]
        except anyio.get_cancelled_exc_class():
            self._end(entry, Outcome.ABANDONED, began)
            self._queue.finish(entry, time.monotonic())
            log.abandoned(entry)
            raise
        # Before this job gives way to the next: what it left aside is older than what has the name now, and what has
        # the name now is not to start as if it were still the same.
        for orphan in await orphans(workdir):
            self._queue.arrive(orphan, time.monotonic(), event=False)
        listing = await self._list_again(entry, ending)
        self._apply(entry, ending, began)
        await self._take(listing)
        if isinstance(ending, Failed) or (isinstance(ending, Done) and ending.retried):
            await self._monitor.count_failed()

    async def _take(self, listing: Listing) -> None:
        """Tell the queue what was seen: files in the order of their events, what a scan has found by age."""
        for entry in listing.recovered:
            self._queue.arrive(entry, time.monotonic(), event=False)
        for name in listing.gone:
            self._queue.vanish(name, time.monotonic())
        files = list(listing.files.items())
        if listing.scan_started is not None:
            files.sort(key=lambda file: file[1].changed_ns)
        for number, (name, identity) in enumerate(files, start=1):
            self._take_file(name, identity, listing)
            if number % _AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
        if listing.scan_started is not None:
            self._queue.keep_only(listing.files, time.monotonic(), seen_before=listing.scan_started)
        self._wake()
        if not self._queue.count(Phase.RUNNING):
            await self._housekeeper.close_retired()

    def _take_file(self, name: str, identity: Identity, listing: Listing) -> None:
        known, arrival, now = self._queue.get(name), listing.arrivals.get(name), time.monotonic()
        if name in listing.touched:
            if known is None or known.phase is not Phase.DEFERRED:
                return
            arrival = known.arrival  # somebody may have fixed what the job stumbled over
        if known is not None and listing.scan_started is not None and known.seen >= listing.scan_started:
            return  # an event has told of it since the scan began
        if known is not None and known.identity == identity and arrival is None:
            known.seen = now
            return
        entry = Entry.found(name, identity, given_back=self._housekeeper.was_given_back(name, identity))
        entry.arrival = arrival or Arrival.FOUND
        self._queue.arrive(entry, now, event=arrival is not None)

    async def _list_again(self, entry: Entry, ending: Ending) -> Listing:
        """Return what is there under the file's name, if something happened to it while its job ran."""
        listing, arrivals = Listing(), dict[str, Arrival]()
        wanted = isinstance(ending, Deferred) and ending.reason is Reason.SOURCE and not entry.is_aside
        while wanted or entry.arrived_again is not None:
            if entry.arrived_again is not None:
                arrivals[entry.name] = entry.arrived_again
            entry.arrived_again, wanted = None, False
            listing = await self._monitor.list_names([entry.name])
        listing.arrivals = arrivals
        return listing

    def _apply(self, entry: Entry, ending: Ending, began: float) -> None:
        now = time.monotonic()
        if isinstance(ending, Done):
            log.done(entry, ending, self.state.progress_of(entry), now - began)
            self.state.receipts.append(ending.receipt)
            self._end(entry, Outcome.DONE, began, results=ending.results)
            self._queue.finish(entry, now)
            self._queue.release(now)
        elif isinstance(ending, Failed):
            log.failed(entry, ending, now - began)
            self.state.job_failed(ending.record)
            self._end(entry, Outcome.FAILED, began, error=str(ending.record["error"]))
            self._queue.finish(entry, now)
            if ending.answered or self._queue.held_for is Reason.SPOOL:
                self._queue.release(now)
        elif isinstance(ending, Deferred):
            self._apply_deferred(entry, ending, began)
        elif isinstance(ending, LockedElsewhere):
            due = now + random.uniform(*ELSEWHERE_SECONDS)  # noqa: S311 - no secret hangs on it
            self._queue.leave_elsewhere(entry, now, due=due)
        elif isinstance(ending, GaveWay):
            if self.state.job_put_back(entry):
                log.gave_way(entry)
            self._queue.put_back(entry, now)
        elif isinstance(ending, Suspected):
            log.suspected(entry)
            self._queue.set_apart(entry, now)
        else:
            self._queue.finish(entry, now)

    def _apply_deferred(self, entry: Entry, ending: Deferred, began: float) -> None:
        now = time.monotonic()
        delay = self._delay(ending, entry.failures)
        log.deferred(entry, ending, delay)
        self._end(entry, Outcome.DEFERRED, began, reason=ending.reason, error=ending.error)
        if ending.reason is Reason.SPOOL:
            self._monitor.suspect(ending.error)
        due = now + delay
        if ending.is_shared:
            pings = self._ping is not None and ending.reason in WITHOUT_ANSWER
            until = now if pings else now + self._delay(ending, self._queue.shared_failures)
            due = max(due, self._queue.hold(ending.reason, now, until=until, pings=pings))
        elif ending.reason in ANSWERED and self._queue.held_for in WITHOUT_ANSWER:
            self._queue.release(now)
        entry.next_try = time.time() + due - now
        self._queue.defer(
            entry, now, due=due, reason=ending.reason, error=ending.error, non_blocking=ending.non_blocking
        )

    def _delay(self, ending: Deferred, failures: int) -> float:
        if ending.delay_seconds is not None:
            return ending.delay_seconds
        if ending.reason is Reason.SOURCE and failures == 0:
            return 0.0  # the new content is there already
        return self._settings.backoff.delay_seconds(failures + 1, retry_after_seconds=ending.retry_after_seconds)

    def _end(
        self,
        entry: Entry,
        outcome: Outcome,
        began: float,
        *,
        results: tuple[ImageResult, ...] = (),
        reason: Reason | None = None,
        error: str = "",
    ) -> None:
        end = JobEnd(
            name=display(entry.name),
            action=entry.action,
            reference=entry.reference,
            outcome=outcome,
            attempt=entry.attempts,
            seconds=time.monotonic() - began,
            archive_bytes=entry.identity.size,
            results=results,
            reason=reason,
            error=error,
        )
        self.state.job_ended(entry, end)

"""What is sent over the link, by whom, and what it took."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from bench.over_wire.far_ends import DIRECT, FarEnd, RealCluster
from bench.over_wire.link import Line
from bench.over_wire.senders import SENDERS, User
from bench.over_wire.wire_images import LayerShelf, write_archive, write_program
from bench.process import RunFailed
from bench.pushes import Row, Table
from bench.spooler import program

LAYERS = 8
FIRST, UNCHANGED, CHANGED = "first push", "unchanged", "one layer of eight"
REBUILT, ONE_FILE, TOGETHER, POD = "rebuilt layer", "one file of a layer", "ten at once", "to a running pod"
WORK = (FIRST, UNCHANGED, CHANGED, REBUILT, ONE_FILE, TOGETHER, POD)
WORKLOAD = "deployment/web"
Measure = Callable[[str, set[str]], None]
GAUGE_SECONDS = 0.1
BETWEEN_BUILDS_SECONDS = 10
"""Between the two pushes of a layer that is built again, which takes its builder some time."""
DATA_BYTES = 1_000_000
"""The file that has changed in an image that runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """How much is sent."""

    layer_bytes: int
    """Of each of the eight."""
    packages_bytes: int
    large_bytes: int
    """Of the layer in which one file has changed."""
    people: int
    person_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WireSample:
    """What one piece of work took."""

    wall_seconds: float
    sent_bytes: int
    received_bytes: int
    pod_bytes: int
    """The most that the pod's processes were seen to hold, page cache aside."""
    rollout_seconds: float | None = None
    """From the first word of the rollout to the end."""


@dataclass(kw_only=True)
class WireBench:
    """The pieces of work. Each sender has a home and a repository for every run."""

    far_end: FarEnd
    shelf: LayerShelf
    amounts: Amounts
    line: Line
    scratch: Path
    tell: Callable[[str], None]
    table: Table = field(default_factory=lambda: Table([]))
    _runs: int = 0

    def run(self, work: Sequence[str], senders: Sequence[str], rounds: int) -> Table:
        """Do all of it; who fails keeps a place in the table, with the reason."""
        order = [(piece, sender) for piece in WORK if piece in work for sender in senders]
        self.table.rows.extend(Row(case=piece, contestant=sender) for piece, sender in order if piece != POD)
        for number in range(rounds):
            self.tell(f"round {number + 1} of {rounds}")
            for sender in senders if number % 2 == 0 else reversed(senders):
                for pieces, measure in self._pieces():
                    if wanted := pieces & set(work):
                        self._attempt(wanted, sender, measure)
            if POD in work:
                self._pod()
        return self.table

    def _pieces(self) -> list[tuple[set[str], Measure]]:
        return [
            ({FIRST, UNCHANGED, CHANGED}, self._image),
            ({REBUILT}, self._rebuilt),
            ({ONE_FILE}, self._one_file),
            ({TOGETHER}, self._together),
        ]

    def _attempt(self, work: set[str], sender: str, measure: Measure) -> None:
        """Do it, or note why it could not even be prepared."""
        try:
            measure(sender, work)
        except RunFailed as exc:
            for piece in work:
                self._row(piece, sender).fail(exc)

    def _image(self, sender: str, work: set[str]) -> None:
        """Push an image of eight layers, push it again, and push it with its middle layer changed."""
        *layers, new = self.shelf.plain(LAYERS + 1, self.amounts.layer_bytes)
        run = self._next_run(sender)
        with self._user(run) as user:
            archive = write_archive(user.home / "app.tar", layers, run)
            if FIRST in work:
                self._measure(FIRST, sender, [user], [archive], f"{run}:v1")
            else:
                self._prepare(sender, user, archive, f"{run}:v1")
            if UNCHANGED in work:
                self._measure(UNCHANGED, sender, [user], [archive], f"{run}:v1")
            if CHANGED in work:
                layers[LAYERS // 2] = new
                archive = write_archive(user.home / "changed.tar", layers, run)
                self._measure(CHANGED, sender, [user], [archive], f"{run}:v2")

    def _rebuilt(self, sender: str, _: set[str]) -> None:
        self._pair(REBUILT, sender, self.shelf.packages(self.amounts.packages_bytes))

    def _one_file(self, sender: str, _: set[str]) -> None:
        self._pair(ONE_FILE, sender, self.shelf.one_file_changed(self.amounts.large_bytes))

    def _pair(self, work: str, sender: str, layers: tuple[Path, Path]) -> None:
        """Have the first on the far end, and push the second."""
        run = self._next_run(sender)
        with self._user(run) as user:
            before, after = (write_archive(user.home / f"{at}.tar", [layer], run) for at, layer in enumerate(layers))
            self._prepare(sender, user, before, f"{run}:v1")
            time.sleep(BETWEEN_BUILDS_SECONDS)
            self._measure(work, sender, [user], [after], f"{run}:v2")

    def _together(self, sender: str, _: set[str]) -> None:
        """Several people, each behind a link like that, push images of their own at once."""
        layers = self.shelf.plain(self.amounts.people, self.amounts.person_bytes)
        run = self._next_run(sender)
        with ExitStack() as links:
            users = [links.enter_context(self._user(f"{run}-{at}")) for at in range(self.amounts.people)]
            archives = [write_archive(u.home / "app.tar", [layer], run) for u, layer in zip(users, layers, strict=True)]
            self._measure(TOGETHER, sender, users, archives, f"{run}-%d:v1")

    def _pod(self) -> None:
        """Change a file of an image that runs; and, beside it, what the rollout alone takes."""
        if not isinstance(self.far_end, RealCluster):
            return
        kubectl = self.far_end.installation.kubectl
        run = self._next_run("pod")
        layers = self.shelf.plain(LAYERS, self.amounts.layer_bytes)
        with self._user(run) as user, self.far_end.link(DIRECT) as direct:
            near = replace(user, link=direct)
            archives = []
            for version in ("v1", "v2", "v3"):
                top = write_program(user.home / "program.tar", Random(version).randbytes(DATA_BYTES))
                archives.append(write_archive(user.home / f"{version}.tar", [*layers, top], run))
            image = near.spool("push", "--quiet", str(archives[0]), f"{run}:v1")
            kubectl("create", "deployment", "web", f"--image={image}", "--", "/pause", "-P")
            try:
                kubectl("rollout", "status", WORKLOAD, "--timeout=120s")
                time.sleep(BETWEEN_BUILDS_SECONDS)
                push = (program("kubectl-spool"), "push", str(archives[1]), f"{run}:v2", "--set", WORKLOAD)
                self._follow("kubectl spool push --set", user, *push)
                image = near.spool("push", "--quiet", str(archives[2]), f"{run}:v3")
                change = f"kubectl set image {WORKLOAD} '*={image}' && kubectl rollout status {WORKLOAD}"
                self._follow("kubectl set image", user, "sh", "-ec", change)
            finally:
                kubectl("delete", WORKLOAD, "--wait=true")

    def _follow(self, contestant: str, user: User, *command: str) -> None:
        self._take(POD, contestant, [user], lambda: user.follow(WORKLOAD, *command))

    def _measure(self, work: str, sender: str, users: Sequence[User], archives: Sequence[Path], reference: str) -> None:
        """Let users push at once, each his own archive."""

        def send_all() -> None:
            with ThreadPoolExecutor(len(users)) as side_by_side:
                pushes = [
                    side_by_side.submit(SENDERS[sender], user, archive, reference.replace("%d", str(at)))
                    for at, (user, archive) in enumerate(zip(users, archives, strict=True))
                ]
                for push in pushes:
                    push.result()

        self._take(work, sender, users, send_all)

    def _take(self, work: str, contestant: str, users: Sequence[User], do: Callable[[], float | None]) -> None:
        self.tell(f"{work}, {contestant}")
        row = self._row(work, contestant)
        before = [user.link.crossed() for user in users]
        began = time.monotonic()
        try:
            with MemoryGauge(self.far_end) as gauge:
                rollout = do()
        except RunFailed as exc:
            row.fail(exc)
            return
        seconds = time.monotonic() - began
        after = [user.link.crossed() for user in users]
        row.samples.append(
            WireSample(
                wall_seconds=seconds,
                sent_bytes=sum(now.sent - then.sent for now, then in zip(after, before, strict=True)),
                received_bytes=sum(now.received - then.received for now, then in zip(after, before, strict=True)),
                pod_bytes=gauge.peak_bytes,
                rollout_seconds=rollout,
            )
        )

    def _row(self, work: str, contestant: str) -> Row:
        row = self.table.row(work, contestant)
        if row is None:
            row = Row(case=work, contestant=contestant)
            self.table.rows.append(row)
        return row

    def _prepare(self, sender: str, user: User, archive: Path, reference: str) -> None:
        """Have an image on the far end by the same sender, over no link to speak of."""
        with self.far_end.link(DIRECT) as link:
            SENDERS[sender](replace(user, link=link), archive, reference)

    @contextmanager
    def _user(self, name: str) -> Iterator[User]:
        """Somebody with a new home, which is gone at the end of the block."""
        home = self.scratch / f"home-{name}"
        home.mkdir()
        try:
            with self.far_end.link(self.line) as link:
                yield User(self.far_end, home, link)
        finally:
            shutil.rmtree(home, ignore_errors=True)

    def _next_run(self, sender: str) -> str:
        self._runs += 1
        return f"{sender}-{self._runs}"


class MemoryGauge:
    """The most that the pod holds while the block lasts."""

    def __init__(self, far_end: FarEnd) -> None:
        self.peak_bytes = far_end.memory_bytes()
        self._far_end = far_end
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(GAUGE_SECONDS):
            self.peak_bytes = max(self.peak_bytes, self._far_end.memory_bytes())

"""What breaks. Each fault begins, gives a line for the round's log, and ends when `mend` is called, which is always."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from chaos.world import START_TIMEOUT_SECONDS, World
from support.programs.running_spooler import HEALTH_PORT
from support.registries.faultproxy import Fault, Headers

FOR_EVER = 1 << 30
SOONER_SECONDS = 0.4
"""How long a spooler may look at what was planted, before that is taken away."""

PAGE: tuple[int, Headers, bytes] = (
    200,
    [("Content-Type", "text/html")],
    b"<html><body>Welcome to nginx!</body></html>",
)
WRONG_ANSWERS: dict[str, tuple[int, Headers, bytes]] = {
    "a web page": PAGE,
    "created": (201, [], b""),
    "accepted": (202, [("Location", "http://a..b/")], b""),
    "no content": (204, [], b""),
    "redirect to itself": (307, [("Location", "/v2/")], b""),
    "server error": (500, [], b'{"errors":[{"code":"UNKNOWN","message":"no"}]}'),
    "bad gateway": (502, [("Content-Type", "text/html")], b"<html>bad gateway</html>"),
    "unavailable": (503, [("Retry-After", "1")], b""),
    "too many": (429, [("Retry-After", "0")], b"slow down"),
    "log in": (401, [("WWW-Authenticate", 'Basic realm="x"')], b'{"errors":[{"code":"UNAUTHORIZED"}]}'),
    "not JSON": (200, [("Content-Type", "application/json"), ("Docker-Distribution-Api-Version", "x")], b"\x00\xff{"),
    "another digest": (201, [("Docker-Content-Digest", "sha256:" + "0" * 64), ("Location", "/")], b""),
}
"""None of them says that the file is wrong."""
METHODS = ("", "", "HEAD", "GET", "POST", "PATCH", "PUT")
PATHS = ("", "/blobs/", "/manifests/")


@dataclass(slots=True)
class Breaker:
    """Breaks things, and mends them."""

    world: World
    chance: random.Random
    broken: list[Callable[[], None]] = field(default_factory=list)
    """How to mend what is broken, in that order."""
    count: int = 0

    def act(self) -> str:
        """Break something, or mend what was broken first."""
        if self.broken and self.chance.random() < 0.5:
            self.broken.pop(0)()
            return "mended"
        faults = [
            *(self.kill_spooler, self.stop_spooler, self.kill_registry, self.stop_registry, self.cut, self.cut),
            *(
                self.answer_wrong,
                self.answer_wrong,
                self.answer_wrong_to_all,
                self.fill_disk,
                self.read_only,
                self.plant,
            ),
        ]
        fault = self.chance.choice(faults)
        self.count += 1
        return f"{fault.__name__}: {fault()}"

    def mend(self) -> None:
        """Mend everything."""
        self.world.proxy.faults.clear()
        while self.broken:
            self.broken.pop(0)()

    def kill_spooler(self) -> str:
        """kill -9, and a new start at once or later."""
        number = self._one()
        if not self.world.is_running(number):
            return "it is dead already"
        self.world.kill(number)
        self._later(lambda: self._launch(number))
        return str(number)

    def stop_spooler(self) -> str:
        """SIGSTOP, and SIGCONT later."""
        number = self._one()
        if not self.world.is_running(number):
            return "it is dead already"
        process = self.world.spoolers[number].process
        process.send_signal(signal.SIGSTOP)
        self.broken.append(lambda: process.send_signal(signal.SIGCONT))
        return str(number)

    def kill_registry(self) -> str:
        """kill -9, and a new start at once or later, on the same port."""
        self.world.disturbed = True
        if self.world.registry.running:
            self.world.kill_registry()
            self._later(self._start_registry)
        return ""

    def stop_registry(self) -> str:
        """SIGSTOP, and SIGCONT later."""
        self.world.disturbed = True
        process = self.world.registry._process
        if process is None:
            return "it is dead already"
        process.send_signal(signal.SIGSTOP)
        self.broken.append(lambda: process.send_signal(signal.SIGCONT))
        return ""

    def cut(self) -> str:
        """A connection ends in the middle of a request or of an answer."""
        self.world.disturbed = True
        at = int(2 ** self.chance.uniform(0, 21))
        way = self.chance.choice(("cut_request_after", "cut_answer_after"))
        fault = Fault(method=self.chance.choice(METHODS), times=self.chance.randrange(1, 4), **{way: at})
        self.world.proxy.faults.append(fault)
        return f"{fault.method} {way} {at}"

    def answer_wrong(self) -> str:
        """A few requests get an answer from somebody else."""
        self.world.disturbed = True
        name, answer = self.chance.choice(list(WRONG_ANSWERS.items()))
        fault = Fault(self.chance.choice(METHODS), self.chance.choice(PATHS), answer=answer)
        fault.times = self.chance.randrange(1, 6)
        self.world.proxy.faults.append(fault)
        return f"{fault.times} x {fault.method} {fault.path} {name}"

    def answer_wrong_to_all(self) -> str:
        """Somebody else answers where the registry was."""
        self.world.disturbed = True
        name, answer = self.chance.choice(list(WRONG_ANSWERS.items()))
        fault = Fault(answer=answer, times=FOR_EVER)
        self.world.proxy.faults.insert(0, fault)
        self.broken.append(lambda: setattr(fault, "times", 0))
        return name

    def fill_disk(self) -> str:
        """No byte more on the disk of the spool."""
        if not self.world.is_mounted:
            return "there is no disk of its own"
        ballast = self.world.disk / "ballast"
        try:
            with ballast.open("ab", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 18))
        except OSError:
            self.broken.append(lambda: self._remove(ballast))
        return ""

    def _remove(self, ballast: Path) -> None:
        self.world.remount(read_only=False)
        ballast.unlink(missing_ok=True)

    def read_only(self) -> str:
        """The spoolers find their disk read-only at their start."""
        self._kill_all()
        possible = self.world.remount(read_only=True)
        self._launch_all()

        def mend() -> None:
            # While a spooler holds a file open for writing, nobody could make it read-only; back is always possible.
            self.world.remount(read_only=False)

        self.broken.append(mend)
        return "" if possible else "not possible"

    def plant(self) -> str:
        """A folder of the spooler's own is a link to somebody else's at its start."""
        self._kill_all()
        name = self.chance.choice((".work", ".locks", ".failed", ".receipts"))
        folder, saved = self.world.spool.folder / name, self.world.staging / name
        if not folder.exists():
            self._launch_all()
            return "there is none yet"
        try:
            folder.rename(saved)
            folder.symlink_to(self.world.outside)
        except OSError as exc:  # the disk is full, or read-only
            if not folder.exists() and saved.exists():
                saved.rename(folder)
            self._launch_all()
            return exc.strerror
        self._launch_all()
        for spooler in self.world.spoolers:
            with contextlib.suppress(AssertionError):  # it may refuse to start
                spooler.wait_for_log(HEALTH_PORT, START_TIMEOUT_SECONDS)
        time.sleep(SOONER_SECONDS)
        self._kill_all(may_have_ended=True)
        folder.unlink()
        saved.rename(folder)
        self._launch_all()
        return name

    def _later(self, mend: Callable[[], None]) -> None:
        if self.chance.random() < 0.5:
            mend()
        else:
            self.broken.append(mend)

    def _one(self) -> int:
        return self.chance.randrange(len(self.world.spoolers))

    def _launch(self, number: int) -> None:
        if not self.world.is_running(number):
            self.world.launch(number)

    def _launch_all(self) -> None:
        for number in range(len(self.world.spoolers)):
            self._launch(number)

    def _kill_all(self, *, may_have_ended: bool = False) -> None:
        for number in range(len(self.world.spoolers)):
            if self.world.is_running(number):
                self.world.kill(number, may_have_ended=may_have_ended)

    def _start_registry(self) -> None:
        if not self.world.registry.running:
            self.world.registry.start()


def remove_odd(world: World) -> None:
    """Remove what users left and nobody else may touch."""
    for path in world.spool.folder.iterdir():
        if path.name.endswith("~") or path.is_symlink() or path.is_fifo():
            path.unlink()
        elif path.is_dir() and not path.name.startswith("."):
            shutil.rmtree(path)


def is_odd(path: str) -> bool:
    """Is it something that stays where it is?"""
    return path.endswith("~") or os.path.islink(path) or not os.path.isfile(path)

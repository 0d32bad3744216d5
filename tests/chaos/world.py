"""What is real in a round: a registry, a proxy before it, spoolers on one directory, and what must not be touched."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.programs.running_spooler import HEALTH_PORT, RunningSpooler, Spool
from support.registries.faultproxy import FaultProxy, running_proxy
from support.registries.running_registry import RegistryOptions, RunningRegistry

SPOOL_MIB = 48
"""The disk that the spool is on; small, so that it is soon full."""
SETTLE_SECONDS = 0.6
START_TIMEOUT_SECONDS = 120.0
STRANGER = 12345
"""The user that files belong to when the spooler is not to see who writes them."""
BLIND = ("setpriv", "--bounding-set=-lease,-sys_ptrace")
FLAGS = (f"--settle={SETTLE_SECONDS}", "--tries=2", "--rescan=2", "--shutdown-grace=10", "-vv")


class World:
    """Use `running_world`."""

    def __init__(self, folder: Path, *, blind: bool) -> None:
        self.folder = folder
        self.blind = blind
        """Is the spooler without the capabilities that let it see who writes a file?"""
        self.disk = folder / "disk"
        self.staging = self.disk / "staging"
        self.outside = folder / "outside"
        self.registry = RunningRegistry(folder / "registry", RegistryOptions(deletes=True))
        self.spoolers: list[RunningSpooler] = []
        self.logs: list[str] = []
        self.broken: list[str] = []
        """What went wrong before the end: a spooler that ended by itself."""
        self.deaths = 0
        self.disturbed = False
        """Did anything happen to the connections, so that uploads may be left at the registry?"""
        self.is_mounted = False
        self.proxy: FaultProxy
        self.spool: Spool

    def plant_outside(self) -> str:
        """Files that belong to somebody else; their fingerprint."""
        (self.outside / "deep").mkdir(parents=True)
        for name in ("secret.tar", "deep/letter.txt", "alive", "reserve", "0.tmp"):
            (self.outside / name).write_text(f"nobody's business: {name}")
        return fingerprint(self.outside)

    def launch(self, number: int) -> None:
        """Start a spooler and do not wait for it."""
        self.spoolers[number].launch()

    def kill(self, number: int, *, may_have_ended: bool = False) -> None:
        """Let a spooler die at once."""
        self.deaths += 1
        code = self._end(number, signal.SIGKILL)
        if not may_have_ended:
            self._note(number, code, -signal.SIGKILL)

    def terminate(self, number: int) -> None:
        """Ask a spooler to stop."""
        self.spoolers[number].process.send_signal(signal.SIGCONT)
        code = self._end(number, signal.SIGTERM)
        if not (code == -signal.SIGTERM and re.search(HEALTH_PORT, self.logs[-1]) is None):  # Python was still starting
            self._note(number, code, 0)

    def stop(self) -> None:
        """Ask all spoolers to stop, once they have got that far."""
        for number, spooler in enumerate(self.spoolers):
            spooler.wait_for_log(HEALTH_PORT, START_TIMEOUT_SECONDS)
            self.terminate(number)

    def is_running(self, number: int) -> bool:
        """Was it started, and not ended by us?"""
        return self.spoolers[number]._process is not None

    def _end(self, number: int, how: signal.Signals) -> int:
        spooler = self.spoolers[number]
        spooler.process.send_signal(how)
        try:
            return spooler.ended()
        finally:
            self.logs.append(f"--- spooler {number}\n{spooler.log}")

    def _note(self, number: int, code: int, expected: int) -> None:
        if code != expected:
            self.broken.append(f"spooler {number} ended with {code}, not {expected}")

    def kill_registry(self) -> None:
        """Let the registry die at once."""
        process = self.registry._process
        assert process is not None
        process.kill()
        self.registry.stop()

    def keep(self) -> None:
        """Copy what is on the spool's disk, which ends with the round, and the logs."""
        _end_all(self)
        shutil.copytree(self.disk, self.folder / "kept", symlinks=True, ignore=_special)
        (self.folder / "spoolers.log").write_text("\n".join(self.logs))
        (self.folder / "requests.log").write_text("\n".join(map(str, self.proxy.seen)))

    def remount(self, *, read_only: bool) -> bool:
        """Change what can be done with the disk of the spool; False when that is not possible here."""
        return self.is_mounted and _run("mount", "-o", f"remount,{'ro' if read_only else 'rw'}", str(self.disk))


@contextmanager
def running_world(folder: Path, *, spoolers: int, blind: bool) -> Iterator[World]:
    """Everything started; all of it ended at the end, the spool's disk too: `keep` what is to be seen."""
    world = World(folder, blind=blind)
    with ExitStack() as stack:
        world.disk.mkdir(parents=True)
        world.is_mounted = _run("mount", "-t", "tmpfs", "-o", f"size={SPOOL_MIB}m", "chaos", str(world.disk))
        if world.is_mounted:
            stack.callback(_run, "umount", "--lazy", str(world.disk))
        world.staging.mkdir()
        (world.disk / "spool").mkdir()
        world.spool = Spool(world.disk / "spool")
        world.registry.start()
        stack.callback(world.registry.stop)
        world.proxy = stack.enter_context(_proxy_in_a_thread(world.registry.host))
        before = BLIND if blind else ()
        for _ in range(spoolers):
            world.spoolers.append(RunningSpooler(world.spool, world.proxy.url, *FLAGS, before=before))
        stack.callback(_end_all, world)
        for number in range(spoolers):
            world.launch(number)
        yield world


def _end_all(world: World) -> None:
    for number in range(len(world.spoolers)):
        if world.is_running(number):
            with contextlib.suppress(Exception):
                world._end(number, signal.SIGKILL)


@contextmanager
def _proxy_in_a_thread(host: str) -> Iterator[FaultProxy]:
    """The proxy on an event loop of its own, since the rest of a round is plain code."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    made: list[FaultProxy] = []
    end = asyncio.Event()

    async def run() -> None:
        async with running_proxy(host) as proxy:
            made.append(proxy)
            ready.set()
            await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(30), "the proxy did not start"
    try:
        yield made[0]
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
        loop.close()


def fingerprint(folder: Path) -> str:
    """Of names, kinds, owners, sizes, times and contents below a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        total.update(repr((str(path), status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns)).encode())
        total.update(path.read_bytes() if path.is_file() else b"")
    return total.hexdigest()


def _special(folder: str, names: list[str]) -> list[str]:
    """What cannot be copied for study: FIFOs."""
    modes = {name: os.lstat(f"{folder}/{name}").st_mode for name in names}
    return [name for name, mode in modes.items() if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)]


def _run(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0

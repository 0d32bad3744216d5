"""A round: operations and faults in any order, then everything mended, a while to settle, and the check."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from chaos.checker import complaints
from chaos.faults import Breaker, is_odd
from chaos.model import Model
from chaos.operations import Users
from chaos.payloads import Factory
from chaos.world import World, fingerprint, running_world

SETTLE_TIMEOUT_SECONDS = 180.0
"""A machine may be busy; what is longer than this stands still."""
RESTART_SHARE = 0.85
"""In the other rounds the same processes have to get over it by themselves, back-off and all."""
BLIND_SHARE = 0.2
STEPS = (10, 26)
FAULT_SHARE = 0.3
PAUSES_SECONDS = (0.0, 0.0, 0.01, 0.05, 0.15)


@dataclass(slots=True, kw_only=True)
class Result:
    """How a round came out."""

    seed: int
    complaints: list[str]
    files: int
    faults: int
    seconds: float
    folder: Path | None = None
    """Where everything of a round that failed is kept."""
    story: list[str] = field(default_factory=list)


def play(seed: int, *, spoolers: int | None = None) -> Result:
    """Play one round from its seed. The folder of one that went well is removed."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    result = _Round(seed, folder, spoolers).play()
    result.seconds = time.monotonic() - began
    if result.complaints:
        (folder / "story").write_text("\n".join([*result.story, "", *result.complaints, ""]))
        result.folder = folder
    else:
        shutil.rmtree(folder)
    return result


class _Round:
    """One round; its chance decides everything but the moments at which things happen to meet."""

    def __init__(self, seed: int, folder: Path, spoolers: int | None) -> None:
        self._seed = seed
        self._folder = folder
        self._chance = random.Random(seed)
        number = self._chance.randrange(1, 4)
        self._spoolers = spoolers or number
        self._blind = self._chance.random() < BLIND_SHARE and os.geteuid() == 0
        self._restarts = self._chance.random() < RESTART_SHARE
        self._story: list[str] = [f"seed {seed}: {self._spoolers} spoolers, blind {self._blind}"]
        self._began = time.monotonic()

    def play(self) -> Result:
        model = Model()
        with running_world(self._folder, spoolers=self._spoolers, blind=self._blind) as world:
            outside = world.plant_outside()
            breaker = Breaker(world, self._chance)
            try:
                found = self._act_out(world, model, breaker)
                found = found or complaints(world, model, outside, fingerprint(world.outside))
            except Exception:  # noqa: BLE001 - an assertion of `verify`, or a mistake in here: the next round is played
                found = traceback.format_exc().splitlines()
            if found:
                world.keep()
        return Result(
            seed=self._seed,
            complaints=found,
            files=len(model.contents),
            faults=breaker.count,
            seconds=0.0,
            story=self._story,
        )

    def _act_out(self, world: World, model: Model, breaker: Breaker) -> list[str]:
        """Do it all; what stands still afterwards is a complaint."""
        users = Users(world, model, Factory(self._chance), self._chance)
        try:
            for _ in range(self._chance.randrange(*STEPS)):
                is_fault = self._chance.random() < FAULT_SHARE
                self._tell(breaker.act if is_fault else users.act)
                time.sleep(self._chance.choice(PAUSES_SECONDS))
        finally:
            breaker.mend()
            users.finish()
        for number in range(self._spoolers):
            if self._restarts:
                (world.kill if self._chance.random() < 0.5 else world.terminate)(number)
                world.launch(number)
        self._tell(lambda: "mended, restarted" if self._restarts else "mended")
        try:
            world.spool.wait_until(lambda: is_settled(world), SETTLE_TIMEOUT_SECONDS)
        except AssertionError as exc:
            for number in range(self._spoolers):
                world.kill(number)
            return [f"it does not settle: {exc}", *world.broken]
        self._tell(lambda: "settled")
        world.stop()
        return []

    def _tell(self, act: Callable[[], str]) -> None:
        at = time.monotonic() - self._began
        self._story.append(f"{at:6.3f} {act()}")


def is_settled(world: World) -> bool:
    """Does nothing wait, is nothing set aside, and is nothing of a dead spooler left?"""
    try:
        return _is_at_rest(world.spool.folder)
    except FileNotFoundError:  # something has just been cleared away
        return False


def _is_at_rest(folder: Path) -> bool:
    waiting = (name for name in os.listdir(folder) if not name.startswith(".") and not is_odd(str(folder / name)))
    if any(waiting) or any(folder.glob(".work/*/*/*")):
        return False
    held = {line.split()[5].rpartition(":")[2] for line in Path("/proc/locks").read_text().splitlines()}
    return all(str(alive.stat().st_ino) in held for alive in folder.glob(".work/*/alive"))

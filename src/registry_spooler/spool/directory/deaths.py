"""What the spooler was working on when it died violently: remembered on the disk, by content.

    .work/RUN/MARK.job        there while RUN works on the file whose content has that mark; holds the file's name
    .work/RUN/MARK.alone.job  the same, when it works on nothing else
    .work/died.MARK.RUN       RUN died over it, and over what else it had in hand: one file for each death
    .work/died.MARK.RUN.alone RUN died over it alone

A run that stops takes its `.job` files back. Whoever clears up after a dead one renames them, which is done once
however many try. None of this is synchronised to the disk: it is about processes that die, not about machines.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from registry_spooler.folder import Folder
from registry_spooler.spool.directory.files import OddEntry, identity_of

DEATHS_MAX: Final = 3
"""So many may be a neighbour's fault. From then on the file is worked on last, and alone; a death then is its own."""
JOB: Final = ".job"
_ALONE: Final = ".alone"
_DIED: Final = re.compile(r"died\.(\d+\.\d+\.\d+)\.[0-9a-f]{16}(\.alone)?")
_NAME_MAX_BYTES: Final = 255


@dataclass(frozen=True, slots=True)
class Deaths:
    """How many runs have died while they worked on a file, and whether one of them did nothing else."""

    count: int = 0
    alone: bool = False


NO_DEATHS: Final = Deaths()


def begin_work(run: Folder, name: str, mark: str, *, alone: bool) -> str:
    """Remember that this run works on the file; a full disk is no reason not to. To be given to `end_work`."""
    job = f"{mark}{_ALONE if alone else ''}{JOB}"
    with suppress(OSError):
        run.create(job, os.fsencode(name), durable=False)
    return job


def end_work(run: Folder, job: str) -> None:
    """The run works on it no longer."""
    with suppress(OSError):
        run.remove(job, missing_ok=True)


def end_all_work(run: Folder) -> None:
    """The run works on nothing any longer."""
    with suppress(OSError):
        for name in run.names():
            if name.endswith(JOB):
                run.remove(name, missing_ok=True)


def deaths_over(work: Folder, mark: str) -> Deaths:
    """Count who has died over it."""
    died = _died(work, mark)
    return Deaths(len(died), any(name.endswith(_ALONE) for name in died))


def forget_deaths(work: Folder, mark: str) -> None:
    """The file is not to blame, or has been dealt with."""
    for name in _died(work, mark):
        with suppress(OSError):
            work.remove(name, missing_ok=True)


def note_deaths(work: Folder, run: Folder) -> None:
    """The run is dead: what it worked on has one death more."""
    for name in run.names():
        if name.endswith(JOB):
            with suppress(OSError):
                job = name.removesuffix(JOB)
                alone = _ALONE if job.endswith(_ALONE) else ""
                run.rename(name, work, f"died.{job.removesuffix(_ALONE)}.{run.path.name}{alone}")


def prune_deaths(work: Folder, directory: Folder) -> None:
    """Forget the deaths over contents that are not in the spool any more."""
    for name in work.names():
        if (died := _DIED.fullmatch(name)) and not _is_there(work, name, died[1], directory):
            with suppress(OSError):
                work.remove(name, missing_ok=True)


def _died(work: Folder, mark: str) -> list[str]:
    return [name for name in work.names() if name.startswith(f"died.{mark}.")]


def _is_there(work: Folder, name: str, mark: str, directory: Folder) -> bool:
    try:
        return identity_of(directory, os.fsdecode(work.read(name, _NAME_MAX_BYTES))).mark == mark
    except (OSError, OddEntry):
        return False

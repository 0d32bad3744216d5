"""Taking a file out of the spool when its job has ended, without ever losing a byte that was not pushed.

Between the last look at a name and the act on it, the name can be given to another file, and the file itself can
be written to. So the name goes first, and the looking is done where nobody else can find the file:

1. a read lease on the opened file: nobody has it open for writing, and from here on whoever tries waits;
2. the opened file is still in the state that was pushed;
3. NAME is renamed aside into `.work/`: from here on nobody finds the file by its name;
4. what was renamed is the file that was opened (else NAME had been given to another file: it is given back);
5. a short while passes, in which everybody who found the name before step 3 has got as far as asking for the file;
6. the lease is confirmed: nobody has asked (else the file is given back before the writer gets it);
7. the file is removed, or goes to `.failed/`.

Where no lease is to be had, the open files of other processes and a second look at the file's state have to do.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Final

from registry_spooler.spool.directory.files import (
    Identity,
    OddEntry,
    OpenedFile,
    Writers,
    identity_of,
    read_lease,
    writers_now,
)
from registry_spooler.spool.directory.workdir import Aside, WorkDir

LINGER_SECONDS: Final = 0.01
"""How long step 5 is: much longer than it takes from finding a name to opening the file."""
LINGER_BLIND_SECONDS: Final = 0.1
"""The same without a lease, when only the file's times tell of a write."""


class Taken(enum.Enum):
    """What became of the file."""

    REMOVED = "removed"
    GONE = "gone"
    """Somebody else has taken it away."""
    CHANGED = "changed"
    """It is not the content that the job was about: it is in the spool, to be looked at anew."""
    WRITING = "writing"
    """Somebody has it open for writing: it is in the spool."""


def take_away(
    file: OpenedFile, workdir: WorkDir, dispose: Callable[[Aside], None], *, done: bool, check_writers: bool
) -> Taken:
    """Take the file of a job that has ended out of the spool; blocks for a few hundredths of a second.

    `dispose` is called with the place of the file set aside and makes an end of it. `done`: a durable receipt speaks
    of it. `check_writers` is off where the content does not matter. A file that cannot be given its name back is in
    `workdir.orphaned`. OSError when the disk does not let us: the file is in the spool then.
    """
    with read_lease(file.fd) if check_writers else nullcontext() as writers:
        if writers is Writers.SOME:
            return Taken.WRITING
        if not file.is_unchanged():
            return Taken.CHANGED
        try:
            aside = workdir.set_aside(file.folder, file.file_name, done=file.identity if done else None)
        except FileNotFoundError:
            return Taken.GONE
        try:
            taken = _last_look(file, aside, writers)
            if taken is Taken.REMOVED:
                dispose(aside)
        except BaseException:
            workdir.give_back(aside)
            raise
        if taken is Taken.REMOVED:
            workdir.drop_folder(aside)
        else:
            workdir.give_back(aside)
        return taken


def _last_look(file: OpenedFile, aside: Aside, writers: Writers | None) -> Taken:
    """Steps 4 to 6; `writers` is None where they do not matter."""
    if not _is_content(aside, file.identity):
        return Taken.CHANGED
    time.sleep(LINGER_BLIND_SECONDS if writers is Writers.UNKNOWN else LINGER_SECONDS)
    if writers is not None and writers_now(file.fd) is Writers.SOME:
        return Taken.WRITING
    return Taken.REMOVED if _is_content(aside, file.identity) else Taken.CHANGED


def _is_content(aside: Aside, identity: Identity) -> bool:
    try:
        return identity_of(aside.folder, aside.name).same_content(identity)
    except OddEntry:
        return False

"""Renaming without ever replacing anything: renameat2 with RENAME_NOREPLACE, which Python does not offer.

https://man7.org/linux/man-pages/man2/rename.2.html
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_NOT_OFFERED: Final = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})
"""By an old kernel or C library, or by the file system: NFS answers EINVAL."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def rename_noreplace(source: Path, target: Path) -> None:
    """Rename, or raise FileExistsError when `target` exists; any other OSError as `os.rename` has it."""
    number = _renameat2(source, target)
    if number in _NOT_OFFERED:
        _link_and_unlink(source, target)
    elif number:
        raise OSError(number, os.strerror(number), os.fspath(source), None, os.fspath(target))


def _renameat2(source: Path, target: Path) -> int:
    """The error number, 0 for success."""
    function = getattr(_libc, "renameat2", None)
    if function is None:
        return errno.ENOSYS
    old, new = os.fsencode(source), os.fsencode(target)
    done = function(_AT_FDCWD, old, _AT_FDCWD, new, ctypes.c_uint(_RENAME_NOREPLACE))
    return 0 if done == 0 else ctypes.get_errno()


def _link_and_unlink(source: Path, target: Path) -> None:
    """A second link fails when the name is taken. Killed in between, the file has two names, and is whole."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as exc:
        if exc.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}:
            raise
        # No links on this file system, or none to files of others (fs.protected_hardlinks): the last resort.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target)) from exc
        os.rename(source, target)
        return
    os.unlink(source)

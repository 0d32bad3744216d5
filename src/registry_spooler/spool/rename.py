"""Renaming without ever replacing anything: renameat2 with RENAME_NOREPLACE, which Python does not offer.

https://man7.org/linux/man-pages/man2/rename.2.html
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

from registry_spooler.folder import Folder, plain

_RENAME_NOREPLACE: Final = 1
_NOT_OFFERED: Final = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP})
"""By an old kernel or C library, or by the file system: NFS answers EINVAL."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def rename_noreplace(source: Folder, name: str, target: Folder, new: str) -> None:
    """Rename, or raise FileExistsError when the new name is taken; any other OSError as `os.rename` has it."""
    number = _renameat2(source, plain(name), target, plain(new))
    if number in _NOT_OFFERED:
        _link_and_unlink(source, name, target, new)
    elif number:
        raise OSError(number, os.strerror(number), name, None, new)


def _renameat2(source: Folder, name: str, target: Folder, new: str) -> int:
    """The error number, 0 for success."""
    function = getattr(_libc, "renameat2", None)
    if function is None:
        return errno.ENOSYS
    done = function(source.fd, os.fsencode(name), target.fd, os.fsencode(new), ctypes.c_uint(_RENAME_NOREPLACE))
    return 0 if done == 0 else ctypes.get_errno()


def _link_and_unlink(source: Folder, name: str, target: Folder, new: str) -> None:
    """A second link fails when the name is taken. Killed in between, the file has two names, and is whole."""
    try:
        os.link(name, new, src_dir_fd=source.fd, dst_dir_fd=target.fd, follow_symlinks=False)
    except OSError as exc:
        if exc.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}:
            raise
        # No links on this file system, or none to files of others (fs.protected_hardlinks): the last resort.
        if target.has(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from exc
        source.rename(name, target, new)
        return
    source.remove(name)

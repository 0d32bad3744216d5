"""A heap without holes, and little of it kept when the work is done.

glibc gives every thread an arena and a cache of its own, for many small things at once. Here pieces of up to a megabyte
go from thread to thread. What one thread frees another cannot use; and a small block in a cache is not joined with the
free space around it, which is a hole from then on, often too small for the next piece. Measured while 10 GB were
pushed: 240 MiB resident, and without caches 85, in less time.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

_TUNABLES: Final = {"glibc.malloc.arena_max": "1", "glibc.malloc.tcache_count": "0"}
"""https://sourceware.org/glibc/manual/latest/html_node/Memory-Allocation-Tunables.html"""

_STARTED_AGAIN: Final = "GLIBC_TUNABLES_SET_BY"
"""The process that has done it, lest it do so for ever where the other variable does not come through."""


def have_one_heap() -> None:
    """Have one heap without caches: glibc reads that when a process starts, so the program starts again in its place.

    Nothing is done where it has been told, or with another C library (musl has one heap anyway). To be called first.
    """
    told = os.environ.get("GLIBC_TUNABLES", "")
    missing = [f"{name}={value}" for name, value in _TUNABLES.items() if f"{name}=" not in told]
    this = str(os.getpid())
    if missing and _is_glibc() and os.environ.get(_STARTED_AGAIN) != this:
        os.environ[_STARTED_AGAIN] = this
        os.environ["GLIBC_TUNABLES"] = ":".join([told, *missing] if told else missing)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the program itself, without a shell


def give_back() -> None:
    """Have the C library hand what is free to the system, also between what is in use; takes some milliseconds.

    Measured after four archives at once: 50 MiB stay resident, not 85.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def _is_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (ValueError, OSError):
        return False

"""Four large uploads at once, of streams that cannot be read again, in a process of their own: how much memory?"""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import anyio, contextlib, hashlib, resource, sys
from registry_spooler.oci.blob import PIECE_BYTES
from registry_spooler.oci.blob import Measured
from registry_spooler.oci.digest import Digest
from registry_spooler.progress import Progress
from registry_spooler.registry.registry_client import RegistryClient

BLOB_BYTES = 96 << 20


class Stream:
    size, rewindable = None, False

    def __init__(self, number):
        self.left, self.number, self.hasher = BLOB_BYTES, number, hashlib.sha256()

    @property
    def measured(self):
        return Measured(digest=Digest("sha256", self.hasher.hexdigest()), size=BLOB_BYTES)

    async def read(self):
        await anyio.lowlevel.checkpoint()
        if not self.left:
            return b""
        piece = (self.number + self.left).to_bytes(8, "big") * (PIECE_BYTES // 8)
        self.left -= len(piece)
        await anyio.to_thread.run_sync(self.hasher.update, piece)
        return piece


async def main():
    async with RegistryClient(sys.argv[1]) as client:
        await client.ping()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with anyio.create_task_group() as tasks:
            for number in range(4):
                @contextlib.asynccontextmanager
                async def opener(number=number):
                    yield Stream(number)
                tasks.start_soon(client.put_blob, sys.argv[2], opener, Progress())
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)


anyio.run(main)
"""
MOST_MIB = 60
"""The chunk budget is 4 x 6 + 24 MiB for four uploads; the rest is what sockets and the allocator keep."""


def test_four_streams_at_once_stay_within_the_budget(registry, repository):
    arguments = [sys.executable, "-c", PROGRAM, registry.url, repository]
    grown = int(subprocess.run(arguments, check=True, capture_output=True, timeout=100, text=True).stdout)
    assert grown <= MOST_MIB

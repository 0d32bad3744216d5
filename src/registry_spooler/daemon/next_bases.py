"""Signatures before they are asked for: of the layers that have just come, with which the next push is compared.

A caller who asks what a layer can be based on will most likely build it again. So when its image has its tag, the same
question is put here, which makes the signature and keeps it.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Final

import anyio

from registry_spooler.daemon.line import Line
from registry_spooler.delta.base import LayerStep
from registry_spooler.errors import SpoolerError
from registry_spooler.oci.reference import Reference
from registry_spooler.push.delta_bases import SignatureStore, find_base
from registry_spooler.registry.registry_client import RegistryClient

WAITING_MAX: Final = 64
"""Layers that wait; the oldest go, and are signed when somebody asks."""

_log: Final = logging.getLogger("registry_spooler.daemon.remote")


class NextBases:
    """Signs one layer after the other, each in a place of the line in which transfers wait. Loop thread only."""

    def __init__(self, client: RegistryClient, store: SignatureStore, line: Line) -> None:
        self._client = client
        self._store = store
        self._line = line
        self._waiting: deque[tuple[Reference, LayerStep]] = deque(maxlen=WAITING_MAX)
        self._news = anyio.Event()

    def add(self, reference: Reference, step: LayerStep) -> None:
        """Have the layer of that step of an image signed."""
        self._waiting.append((reference, step))
        self._news.set()

    async def run(self) -> None:
        """Sign until cancelled."""
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            while self._waiting:
                async with self._line.place(lambda _: None):
                    await self._sign(*self._waiting.popleft())

    async def _sign(self, reference: Reference, step: LayerStep) -> None:
        try:
            await find_base(self._client, reference, step, self._store)
        except Exception as exc:  # noqa: BLE001 - whatever became of one layer, the daemon and the others go on
            _log.debug("no signature of a layer of %s: %s", reference, exc, exc_info=not isinstance(exc, SpoolerError))

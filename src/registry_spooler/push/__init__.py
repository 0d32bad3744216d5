"""Pushing: from a source of bytes to a tag that the registry answers for.

Flow: `pusher` leads. `stream` receives what comes by only once, `target` and `plan` say what an image consists of
(`need` by `need`), `deliver` and `delivery` get the blobs to the registry, `image` makes the manifests
that the source lacks, and `known` remembers what need not be read again.
"""

from __future__ import annotations

from registry_spooler.push.delivery import Counts
from registry_spooler.push.known import KnownBlobs, KnownLayer
from registry_spooler.push.pusher import Pusher, PushOptions
from registry_spooler.push.registry import Registry, Upload

__all__ = ["Counts", "KnownBlobs", "KnownLayer", "PushOptions", "Pusher", "Registry", "Upload"]

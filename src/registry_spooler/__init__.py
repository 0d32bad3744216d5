"""Registry Spooler: files dropped into a directory become the contents of a container registry.

This page is the public API for Python programs:

    async with SpoolerClient.connect(namespace="registry") as client:
        receipt = await client.push(Path("app.tar"), "catalog/app:v2")
        print(receipt.digest)

All errors are `SpoolerError`s, whose text says what to do next. Everything below the modules of this page may change
with any version. docs/architecture.md tells where things are.
"""

from __future__ import annotations

from registry_spooler.version import __version__

TYPE_CHECKING = False
"""What type checkers take for true. To import `typing` would make every exec in the pod slower."""
if TYPE_CHECKING:
    from typing import Any, Final

    from registry_spooler.archive.compression import Compression
    from registry_spooler.client import Receipt, SpoolerClient
    from registry_spooler.errors import (
        AccessDenied,
        ArchiveError,
        InvalidReference,
        NotFound,
        RegistryError,
        SpoolerError,
    )
    from registry_spooler.kubernetes.answers import (
        BlobDescription,
        FailedFile,
        ImageDescription,
        PlatformDescription,
        SpoolerStatus,
    )
    from registry_spooler.kubernetes.cluster_errors import KubeError, NoPod, RemoteError
    from registry_spooler.kubernetes.transfer.send import Published
    from registry_spooler.oci.digest import Digest
    from registry_spooler.oci.reference import Reference
    from registry_spooler.progress import ImageResult, Progress

__all__ = [
    "AccessDenied",
    "ArchiveError",
    "BlobDescription",
    "Compression",
    "Digest",
    "FailedFile",
    "ImageDescription",
    "ImageResult",
    "InvalidReference",
    "KubeError",
    "NoPod",
    "NotFound",
    "PlatformDescription",
    "Progress",
    "Published",
    "Receipt",
    "Reference",
    "RegistryError",
    "RemoteError",
    "SpoolerClient",
    "SpoolerError",
    "SpoolerStatus",
    "__version__",
]

_MODULES: Final = {
    "kubernetes.answers": ("BlobDescription", "FailedFile", "ImageDescription", "PlatformDescription", "SpoolerStatus"),
    "archive.compression": ("Compression",),
    "client": ("Receipt", "SpoolerClient"),
    "errors": ("AccessDenied", "ArchiveError", "InvalidReference", "NotFound", "RegistryError", "SpoolerError"),
    "kubernetes.cluster_errors": ("KubeError", "NoPod", "RemoteError"),
    "kubernetes.transfer.send": ("Published",),
    "oci.digest": ("Digest",),
    "oci.reference": ("Reference",),
    "progress": ("ImageResult", "Progress"),
}
_HOME: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: the programs in the pod start without what a client needs."""
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__

"""The client of any OCI registry.

`RegistryClient` is the whole face; `Upload` is an upload session that may be held open uncommitted.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from registry_spooler.registry.address import RegistryAddress
from registry_spooler.registry.budget import ChunkBudget
from registry_spooler.registry.client import RegistryClient
from registry_spooler.registry.credentials import CredentialSettings, CredentialSource
from registry_spooler.registry.profile import UploadForm, UploadOptions
from registry_spooler.registry.retry import RetryPolicy
from registry_spooler.registry.upload import Upload

__all__ = [
    "ChunkBudget",
    "CredentialSettings",
    "CredentialSource",
    "RegistryAddress",
    "RegistryClient",
    "RetryPolicy",
    "Upload",
    "UploadForm",
    "UploadOptions",
]

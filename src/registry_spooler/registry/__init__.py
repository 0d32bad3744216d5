"""The client of any OCI registry: `RegistryClient` is the whole face.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

"""Credentials of a registry."""


class CredentialSource: ...

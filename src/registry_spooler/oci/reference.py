"""References: which repository, and which tag or digest in it.

The grammar is the distribution specification's
(https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests). A reference here
never names a registry: that is where the client is connected to. `ImageName` is what an archive
calls an image, and may name one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from registry_spooler.errors import InvalidReference
from registry_spooler.oci.digest import Digest
from registry_spooler.text import quoted

_COMPONENT: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_REPOSITORY_MAX: Final = 255


def check_repository(text: str) -> str:
    """Return `text` when it is a repository name, or raise InvalidReference with the reason."""
    if not text:
        raise InvalidReference(text, "the repository name is empty")
    if len(text) > _REPOSITORY_MAX:
        raise InvalidReference(text[:80] + "…", f"a repository name has at most {_REPOSITORY_MAX} characters")
    for component in text.split("/"):
        if not _COMPONENT.fullmatch(component):
            raise InvalidReference(text, _component_reason(component))
    return text


def _component_reason(component: str) -> str:
    if not component:
        return "it has an empty path component"
    if component != component.lower():
        return f"{quoted(component)} has upper-case letters, and repository names are lower-case"
    return (
        f"{quoted(component)} is not a path component of a repository name "
        "(lower-case letters and digits, with single '.', '_', '__' or dashes between them)"
    )


def check_tag(text: str) -> str:
    """Return `text` when it is a tag, or raise InvalidReference with the reason."""
    if not _TAG.fullmatch(text):
        reason = (
            "the tag is empty"
            if not text
            else f"{quoted(text, 140)} is not a tag (1 to 128 of A-Z a-z 0-9 _ . -, not starting with . or -)"
        )
        raise InvalidReference(text[:140], reason)
    return text


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A repository with a tag or a digest; a digest wins where both are given."""

    repository: str
    tag: str | None = "latest"
    digest: Digest | None = None

    def __post_init__(self) -> None:
        check_repository(self.repository)
        if self.tag is not None:
            check_tag(self.tag)
        if self.tag is None and self.digest is None:
            raise InvalidReference(self.repository, "neither a tag nor a digest is given")

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.repository}{tag}{digest}"

    @property
    def target(self) -> str:
        """What stands behind `/manifests/` in the protocol: the digest, or else the tag."""
        return str(self.digest) if self.digest is not None else str(self.tag)

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read `repository[:tag][@digest]`; without both the tag is `latest`."""
        rest, at, digest_text = text.partition("@")
        try:
            digest = Digest.parse(digest_text) if at else None
        except ValueError as exc:
            raise InvalidReference(text, f"{quoted(digest_text, 140)} is not a digest") from exc
        head, slash, last = rest.rpartition("/")
        name, colon, tag = last.partition(":")
        default = None if digest is not None else "latest"
        return cls(head + slash + name, tag if colon else default, digest)


@dataclass(frozen=True, slots=True)
class ImageName:
    """What an archive calls one of its images: `[host/]repository[:tag]`.

    The first component is a host when it holds a dot or a colon or is `localhost`, the rule of
    every tool that writes archives.
    """

    host: str | None
    repository: str
    tag: str | None

    @classmethod
    def parse(cls, text: str) -> ImageName:
        """Read a name; InvalidReference when its repository or tag does not follow the grammar."""
        rest = text.partition("@")[0]
        first, slash, remainder = rest.partition("/")
        is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
        path = remainder if is_host else rest
        head, last_slash, last = path.rpartition("/")
        name, colon, tag = last.partition(":")
        repository = check_repository(head + last_slash + name)
        return cls(first if is_host else None, repository, check_tag(tag) if colon else None)

    def __str__(self) -> str:
        host = f"{self.host}/" if self.host else ""
        return f"{host}{self.repository}" + (f":{self.tag}" if self.tag else "")

    @property
    def reference(self) -> Reference:
        """Where the image goes when the archive decides: without the registry host."""
        return Reference(self.repository, self.tag or "latest")

    def matches(self, reference: Reference) -> bool:
        """Is this the image that `reference` means: with the host in the path, without it, or by the familiar name?"""
        familiar = self.repository.removeprefix("library/")
        repositories = {self.repository, familiar, f"library/{familiar}"}
        if self.host:
            repositories |= {f"{self.host}/{repository}" for repository in tuple(repositories) if ":" not in self.host}
        return reference.repository in repositories and (self.tag or "latest") == reference.tag

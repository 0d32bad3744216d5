"""docker's `config.json` and Kubernetes's `.dockerconfigjson`: which login is for which repository.

Two families of rules hold at once. Docker, podman and crane: the key that is the registry, or a path of the image
under it, the longest first; keys may be written as URLs. Kubernetes: `*` stands for any part of one label of the host,
ports are equal, the key's path is a prefix of the image's; longer keys first, and every match is a candidate.
Unlike in Kubernetes a path only matches at a `/`: a login for `host/team` is not sent for `host/teammate/app`.
Credential helpers are programs, and not run.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from registry_spooler.registry.credential import Credential

_TOKEN_USER = "<token>"  # noqa: S105 - the user name that marks a password as an identity token


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """The logins of a file, by their normalised keys: `host[:port][/path]`."""

    logins: tuple[tuple[str, Credential], ...]
    has_store: bool = False
    """Are logins kept by one helper program for all registries (`credsStore`)?"""
    helped: tuple[str, ...] = ()
    """The registries, by their normalised keys, that have a helper of their own (`credHelpers`)."""

    @classmethod
    def parse(cls, content: bytes) -> DockerConfig:
        """Read a file; ValueError says what is wrong without quoting any of it."""
        try:
            document = orjson.loads(content)
        except orjson.JSONDecodeError:
            raise ValueError("it is not valid JSON") from None
        if not isinstance(document, dict):
            raise ValueError("it is not a JSON object")  # noqa: TRY004 - the content is wrong, not its type in Python
        # The old `.dockercfg` is the map itself.
        auths = document.get("auths", document if "auths" not in document and _looks_old(document) else {})
        if not isinstance(auths, dict):
            raise ValueError("its 'auths' is not a JSON object")  # noqa: TRY004 - as above
        logins = ((_normalised(key), _credential(entry)) for key, entry in auths.items())
        helpers = document.get("credHelpers")
        return cls(
            tuple((key, login) for key, login in logins if login is not None and not login.is_empty),
            has_store=bool(document.get("credsStore")),
            helped=tuple(map(_normalised, helpers)) if isinstance(helpers, dict) else (),
        )

    def candidates(self, hosts: tuple[str, ...], repository: str) -> tuple[Credential, ...]:
        """The logins for a repository of the registry with these spellings, the most fitting first."""
        found = [*self._exact(hosts, repository), *self._by_pattern(hosts, repository)]
        return tuple(dict.fromkeys(found))

    def needs_helper(self, hosts: tuple[str, ...]) -> bool:
        """Is the login for this registry nowhere but with a helper, which is not run?"""
        patterns = [key.partition("/")[0] for key, _ in self.logins]
        if any(_host_matches(pattern, host) for pattern in patterns for host in hosts):
            return False
        return self.has_store or any(host in self.helped for host in hosts)

    def _exact(self, hosts: tuple[str, ...], repository: str) -> Iterator[Credential]:
        parts = [part for part in repository.split("/") if part]
        for count in range(len(parts), -1, -1):
            for host in hosts:
                wanted = "/".join([host, *parts[:count]])
                yield from (login for key, login in self.logins if key == wanted)

    def _by_pattern(self, hosts: tuple[str, ...], repository: str) -> Iterator[Credential]:
        for key, login in sorted(self.logins, key=lambda pair: pair[0], reverse=True):
            pattern, _, path = key.partition("/")
            path_fits = not path or repository == path or repository.startswith(f"{path}/")
            if path_fits and any(_host_matches(pattern, host) for host in hosts):
                yield login


def _host_matches(pattern: str, host: str) -> bool:
    pattern_name, _, pattern_port = pattern.partition(":")
    name, _, port = host.partition(":")
    labels, pattern_labels = name.split("."), pattern_name.split(".")
    return (
        pattern_port == port
        and len(labels) == len(pattern_labels)
        and all(fnmatch.fnmatchcase(label, part) for label, part in zip(labels, pattern_labels, strict=True))
    )


def _normalised(key: str) -> str:
    """Without scheme, without the `/v1/` and `/v2/` of old API addresses, and without a slash at the end."""
    rest = key.strip().partition("://")[2] or key.strip()
    host, _, path = rest.partition("/")
    path = path.strip("/")
    for version in ("v1", "v2"):
        if path == version or path.startswith(f"{version}/"):
            path = path[len(version) :].strip("/")
            break
    return f"{host.lower()}/{path}" if path else host.lower()


def _looks_old(document: dict[str, Any]) -> bool:
    return any(isinstance(entry, dict) and "auth" in entry for entry in document.values())


def _credential(entry: object) -> Credential | None:
    if not isinstance(entry, dict):
        return None
    texts = {key: value for key, value in entry.items() if isinstance(value, str)}
    username, password = texts.get("username", ""), texts.get("password", "")
    if auth := texts.get("auth", ""):
        username, password = _decode(auth)
    identity = texts.get("identitytoken", "")
    if username == _TOKEN_USER and not identity:
        identity, password = password, ""
    return Credential(
        username=username,
        password=password,
        identity_token=identity,
        registry_token=texts.get("registrytoken", ""),
    )


def _decode(auth: str) -> tuple[str, str]:
    try:
        text = base64.b64decode(auth.strip() + "=" * (-len(auth.strip()) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        # An entry for one registry that cannot be read is no reason to be without the others.
        return "", ""
    username, _, password = text.partition(":")
    return username, password.strip("\0")

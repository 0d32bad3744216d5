"""Turn an unwanted answer into an error that says what to do about it.

Anything may stand at a registry's address for a while: a proxy's web page, a development server, what says 200 or 201
to everything. Nothing that such a neighbour says may count as a registry's refusal of an image, or as its absence.
All the registries that are known here send the version header, but the specification does not ask for it; so its
error list counts as well, and where there is neither more has to be asked (`HttpClient.prove`).
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from registry_spooler.errors import AccessDenied, DeletesDisabled, NotFound, RefusedElsewhere, RegistryAnswer
from registry_spooler.registry.http.known_secrets import KnownSecrets
from registry_spooler.registry.http.retry import retry_after_seconds
from registry_spooler.registry.http.transport import Answer
from registry_spooler.registry.http.trust import TargetRules

_VERSION: Final = "Docker-Distribution-Api-Version"


def is_page(headers: Mapping[str, str]) -> bool:
    """Return whether it is a web page, which no registry's answer is."""
    return "html" in headers.get("Content-Type", "").lower()


def shows_registry(answer: Answer) -> bool:
    """Return whether an answer bears a registry's mark.

    Proxies are set up to add the version header to whatever they say, so a page with it is a page none the less.
    """
    if is_page(answer.headers):
        return False
    return answer.headers.get(_VERSION, "").lower().startswith("registry/2") or _has_errors(answer.content)


def _has_errors(content: bytes) -> bool:
    try:
        document: Any = orjson.loads(content)
        return isinstance(document["errors"][0]["code"], str)
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return False


_MESSAGE_CHARACTERS: Final = 300
_READ_BYTES: Final = 16 << 10
_SECRETS: Final = re.compile(r"(?i)\b(?:bearer|basic)\s+[\w.~+/=-]+|\beyJ[\w.-]{10,}|https?://[^\s\"'<>]*\?[^\s\"'<>]+")
"""What a registry's text might repeat: credentials, tokens, signed URLs."""
GIVE_LOGIN: Final = "give it with --username and --password-file, or with --token-file"
NO_LOGIN: Final = f"the registry wants a login; {GIVE_LOGIN}"
_KINDS: Final = {401: AccessDenied, 403: AccessDenied, 404: NotFound}


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """The first entry of the registry's `errors`, or the start of whatever text it sent."""

    code: str = ""
    message: str = ""

    @classmethod
    def read(cls, answer: Answer, secrets: KnownSecrets) -> ErrorBody:
        """Never fails: a body that is no error list is quoted when it is text."""
        try:
            document: Any = orjson.loads(answer.content)
            entry = document["errors"][0]
            detail = entry.get("detail")
            message = str(entry.get("message") or "")
            if isinstance(detail, str) and detail and detail != message:
                message = f"{message} ({detail})" if message else detail
            code = secrets.hide(str(entry.get("code") or ""))
            return cls(_clean(code, 60), _clean(secrets.hide(message), _MESSAGE_CHARACTERS))
        except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError):
            pass
        if "html" in answer.headers.get("Content-Type", ""):
            return cls()
        text = answer.content[:_READ_BYTES].decode("utf-8", "replace")
        shown = secrets.hide(text)
        if len(answer.content) > _READ_BYTES:
            shown = shown[: max(0, len(shown) - secrets.longest)]
        return cls("", _clean(shown, _MESSAGE_CHARACTERS))


def error_of(
    answer: Answer, rules: TargetRules, *, hint: str = "", anonymous: bool = False, elsewhere: bool = False
) -> RegistryAnswer:
    """Return the error for an unwanted answer.

    `anonymous`: we have no login for the registry. `elsewhere`: it comes from where the registry has sent us.
    """
    error_body = ErrorBody.read(answer, rules.secrets)
    kind: type[RegistryAnswer] = _KINDS.get(answer.status, RegistryAnswer)
    if answer.status == 405 and answer.request.method == "DELETE":
        kind = DeletesDisabled
    if elsewhere:
        kind = RefusedElsewhere
    return kind(
        answer.request.method,
        rules.show(answer.url),
        answer.status,
        code=error_body.code,
        message=error_body.message,
        hint="" if elsewhere else hint or _hint(answer, error_body, anonymous),
        retry_after_seconds=retry_after_seconds(answer.headers),
    )


def _hint(answer: Answer, error_body: ErrorBody, anonymous: bool) -> str:
    status, upload = answer.status, "/blobs/uploads/" in answer.url
    if status == 400 and "HTTP request to an HTTPS server" in error_body.message:
        return "the registry speaks https; give its address as https://…"
    if status == 404 and error_body.code == "BLOB_UPLOAD_INVALID":
        return "if it runs in several replicas, they need the same http.secret"
    if status == 413:
        return "a proxy in front of the registry limits the size of requests; a smaller --chunk-size may pass"
    if status == 401:
        return NO_LOGIN if anonymous else "check the user name and password or the token"
    if status == 403:
        what = "to use this registry" if answer.url.endswith("/v2/") else "for this repository"
        nobody = f"nobody has the right {what} without a login; {GIVE_LOGIN}"
        return nobody if anonymous else f"this login does not have the right {what}"
    if status == 415 or (
        status == 400 and error_body.code == "MANIFEST_INVALID" and "mediatype" in error_body.message.lower()
    ):
        return "the registry does not take this kind of manifest (zot takes Docker's with http.compat docker2s2)"
    if status == 405 and upload:
        return "this registry does not accept pushes"
    return ""


def _clean(text: str, limit: int) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text)
    return _SECRETS.sub("…", " ".join(printable.split()))[:limit]

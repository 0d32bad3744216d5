"""Bearer tokens: what is asked of the token server, and what it answers. Plain code, no network.

https://distribution.github.io/distribution/spec/auth/token/ and …/oauth/
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

import orjson

from registry_spooler.registry.credential import Credential
from registry_spooler.registry.transport import Request

CLIENT_ID: Final = "registry-spooler"
LIFE_SECONDS: Final = 60.0
"""What a token lives when its server does not say, and at least."""
RENEW_AT: Final = 0.8
"""The part of a token's life after which it is renewed, so that none runs out on a long chunk's way."""
TOKEN_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Realm:
    """A token server as a challenge named it."""

    url: str
    service: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token; times are of the monotonic clock, counted from its receipt: clocks of servers are not trusted."""

    value: str = field(repr=False)
    scopes: tuple[str, ...]
    renew_at: float
    expires_at: float
    refresh_token: str = field(default="", repr=False)

    @classmethod
    def read(cls, content: bytes, scopes: tuple[str, ...], now: float) -> Token | None:
        """From the answer of a token server; None when there is no token in it."""
        try:
            document: Any = orjson.loads(content)
            value = document.get("access_token") or document.get("token")
        except (orjson.JSONDecodeError, AttributeError):
            return None
        if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
            return None
        said = document.get("expires_in")
        known = isinstance(said, (int, float)) and not isinstance(said, bool)
        life = max(LIFE_SECONDS, float(said)) if known else LIFE_SECONDS
        refresh = document.get("refresh_token")
        return cls(
            value=value,
            scopes=scopes,
            renew_at=now + RENEW_AT * life,
            expires_at=now + life,
            refresh_token=refresh if isinstance(refresh, str) else "",
        )


def basic_header(username: str, password: str) -> str:
    """What `Authorization` says for a name and a password."""
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode()


def get_request(realm: Realm, scopes: tuple[str, ...], login: Credential | None) -> Request:
    """The plain form, which every token server takes: GET, with the password as Basic."""
    parameters = [("service", realm.service)] if realm.service else []
    parameters += [("scope", scope) for scope in scopes]
    parameters.append(("client_id", CLIENT_ID))
    headers = {}
    if login is not None:
        username = login.username or "<token>"
        parameters.append(("account", username))
        headers["Authorization"] = basic_header(username, login.password or login.identity_token)
    separator = "&" if "?" in realm.url else "?"
    query = urlencode(parameters, quote_via=quote, safe=":,/")
    return Request(method="GET", url=f"{realm.url}{separator}{query}", headers=headers)


def post_request(realm: Realm, scopes: tuple[str, ...], login: Credential, refresh_token: str) -> Request:
    """The OAuth2 form, with a refresh (identity) token or else with the password."""
    form = {"client_id": CLIENT_ID, "service": realm.service, "scope": " ".join(scopes)}
    if refresh_token:
        form |= {"grant_type": "refresh_token", "refresh_token": refresh_token}
    else:
        form |= {"grant_type": "password", "username": login.username, "password": login.password}
    return Request(
        method="POST",
        url=realm.url,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body=urlencode(form).encode(),
    )

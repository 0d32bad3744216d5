"""Bearer tokens: fetched from the token server, and kept until shortly before they expire.

https://distribution.github.io/distribution/spec/auth/scope/

https://distribution.github.io/distribution/spec/auth/token/ and …/oauth/

The password goes to the realm that the registry named, and to no other origin that the realm may redirect to.
"""

from __future__ import annotations

import dataclasses
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

import anyio
import orjson

from registry_spooler.errors import AccessDenied, RegistryError, RegistryProtocolError
from registry_spooler.registry.address import Origin
from registry_spooler.registry.http.answer_errors import NO_LOGIN, error_of
from registry_spooler.registry.http.known_secrets import Credential
from registry_spooler.registry.http.transport import Answer, Request, Transport, redirect_location
from registry_spooler.registry.http.trust import TargetRules


def merge(*groups: Iterable[str]) -> tuple[str, ...]:
    """Return the scopes of all groups, one per resource; the first stays first, as some servers read no other."""
    wanted: dict[str, list[str]] = {}
    for scope in (scope for group in groups for scope in group):
        resource, _, actions = scope.rpartition(":")
        known = wanted.setdefault(resource, [])
        known.extend(action for action in actions.split(",") if action and action not in known)
    return tuple(f"{resource}:{','.join(actions)}" for resource, actions in wanted.items())


def covers(granted: Iterable[str], needed: Iterable[str]) -> bool:
    """Return whether a token for `granted` covers `needed`."""
    rights = _by_resource(granted)
    return all(actions <= rights.get(resource, frozenset()) for resource, actions in _by_resource(needed).items())


def _by_resource(scopes: Iterable[str]) -> Mapping[str, frozenset[str]]:
    return {
        resource: frozenset(actions.split(","))
        for resource, _, actions in (scope.rpartition(":") for scope in merge(scopes))
    }


CLIENT_ID: Final = "registry-spooler"
LIFE_SECONDS: Final = 60.0
"""How long a token lives at least, and when its server does not say."""
RENEW_AT: Final = 0.8
"""The part of a token's life after which it is renewed, so that none expires during a long chunk."""
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
        """Read the answer of a token server; None when there is no token in it."""
        try:
            document: Any = orjson.loads(content)
            value = document.get("access_token") or document.get("token")
        except (orjson.JSONDecodeError, AttributeError):
            return None
        if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable():
            return None
        seconds = document.get("expires_in")
        known = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        life = max(LIFE_SECONDS, float(seconds)) if known else LIFE_SECONDS
        refresh = document.get("refresh_token")
        return cls(
            value=value,
            scopes=scopes,
            renew_at=now + RENEW_AT * life,
            expires_at=now + life,
            refresh_token=refresh if isinstance(refresh, str) else "",
        )


def basic_header(username: str, password: str) -> str:
    """Return the `Authorization` header for a name and a password."""
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


TOKENS_KEPT: Final = 1024
_REDIRECTS_MAX: Final = 5
_NO_OAUTH: Final = frozenset({400, 401, 404, 405})
"""What GCR, Artifactory, ACR and older servers answer to the OAuth2 form: the plain one is tried then."""
_REFUSALS: Final = {
    401: "the token server refuses the login; check the user name and password",
    403: "the token server refuses the login, or it does not have the right for this repository",
}

Key = tuple[Realm, tuple[str, ...], Credential | None]


class TokenServers:
    """All tokens of one client."""

    def __init__(self, transport: Transport, rules: TargetRules, clock: Callable[[], float] = time.monotonic) -> None:
        self._transport = transport
        self._rules = rules
        self._clock = clock
        self._tokens: dict[Key, Token] = {}
        self._locks: dict[Key, anyio.Lock] = {}
        self._refresh_tokens: dict[tuple[Realm, Credential | None], str] = {}

    async def token(
        self, realm: Realm, scopes: tuple[str, ...], login: Credential | None, *, other_than: str | None = None
    ) -> str:
        """A token that will do for a while; `other_than` is one that was refused though it should be good.

        AccessDenied when the login is refused.
        """
        key = (realm, scopes, login)
        token = self._known(key, other_than)
        if token is not None and self._clock() < token.renew_at:
            return token.value
        lock = self._locks.setdefault(key, anyio.Lock())
        async with lock:
            # Somebody else may have fetched it while we waited.
            token = self._known(key, other_than)
            if token is not None and self._clock() < token.renew_at:
                return token.value
            return await self._renew(key, token)

    def is_of_login(self, value: str) -> bool:
        """Return whether a token was given out to a login, and not to anybody."""
        return any(token.value == value and login is not None for (_, _, login), token in self._tokens.items())

    def _known(self, key: Key, other_than: str | None) -> Token | None:
        realm, scopes, login = key
        now = self._clock()
        candidates = [self._tokens[key]] if key in self._tokens else []
        candidates += [
            token
            for (known_realm, _, known_login), token in self._tokens.items()
            if known_realm == realm and known_login == login and covers(token.scopes, scopes)
        ]
        return next((token for token in candidates if token.value != other_than and now < token.expires_at), None)

    async def _renew(self, key: Key, present: Token | None) -> str:
        try:
            token = await self._fetch(*key)
        except RegistryError as error:
            # A token that is to be renewed is still good for a while.
            if present is not None and error.transient:
                return present.value
            raise
        self._forget_expired()
        self._tokens[key] = token
        self._locks.pop(key, None)
        return token.value

    def _forget_expired(self) -> None:
        now = self._clock()
        if len(self._tokens) >= TOKENS_KEPT:
            self._tokens = {key: token for key, token in self._tokens.items() if now < token.renew_at}
        while len(self._tokens) >= TOKENS_KEPT:
            del self._tokens[next(iter(self._tokens))]

    async def _fetch(self, realm: Realm, scopes: tuple[str, ...], login: Credential | None) -> Token:
        answer = await self._ask_with_refresh_token(realm, scopes, login)
        if answer is None:
            answer = await self._follow(get_request(realm, scopes, login))
            if answer.status == 405 and login is not None and login.password:
                answer = await self._transport.send(post_request(realm, scopes, login, ""), limit_bytes=TOKEN_MAX_BYTES)
        if answer.status != 200:
            raise self._refused(answer, login)
        token = Token.read(answer.content, scopes, self._clock())
        if token is None:
            raise RegistryProtocolError(self._rules.show(str(Origin.of(realm.url))), "the token server sent no token")
        self._rules.secrets.learn_token(token.value, token.refresh_token)
        if token.refresh_token:
            self._refresh_tokens[realm, login] = token.refresh_token
        return token

    async def _ask_with_refresh_token(
        self, realm: Realm, scopes: tuple[str, ...], login: Credential | None
    ) -> Answer | None:
        """Try the OAuth2 form if there is a refresh token; None when the plain form has to be tried."""
        if login is None:
            return None
        refresh_token = self._refresh_tokens.get((realm, login), login.identity_token)
        if not refresh_token:
            return None
        request = post_request(realm, scopes, login, refresh_token)
        answer = await self._transport.send(request, limit_bytes=TOKEN_MAX_BYTES)
        if answer.status in _NO_OAUTH:
            self._refresh_tokens.pop((realm, login), None)
            return None
        return answer

    async def _follow(self, request: Request) -> Answer:
        for _ in range(_REDIRECTS_MAX):
            answer = await self._transport.send(request, limit_bytes=TOKEN_MAX_BYTES)
            location = redirect_location(answer)
            if location is None:
                return answer
            target = self._rules.realm(request.url, location)
            headers = dict(request.headers) if Origin.of(target) == Origin.of(request.url) else {}
            request = dataclasses.replace(request, url=target, headers=headers)
        raise RegistryProtocolError(
            self._rules.show(str(Origin.of(request.url))), "the token server redirects without end"
        )

    def _refused(self, answer: Answer, login: Credential | None) -> RegistryError:
        """Return the error for a token server's refusal: it is about the login, never about an image."""
        where = self._rules.show(str(Origin.of(answer.url)))
        if answer.status < 400 or answer.status >= 600:
            return RegistryProtocolError(where, f"the token server answered {answer.status}")
        error = error_of(answer, self._rules)
        if isinstance(error, AccessDenied):
            error.hint = NO_LOGIN if login is None else _REFUSALS[answer.status]
        elif not error.temporary:
            return RegistryProtocolError(where, f"the token server does not give tokens out ({error})")
        error.temporary = True
        return error

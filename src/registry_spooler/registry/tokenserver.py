"""Fetching tokens: once per key at a time, kept until shortly before they run out.

The password goes to the realm that the registry named, and to no other origin that the realm may redirect to.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Final

import anyio

from registry_spooler.errors import AccessDenied, RegistryError, RegistryProtocolError
from registry_spooler.registry.address import Origin
from registry_spooler.registry.complaint import NO_LOGIN, error_of
from registry_spooler.registry.credential import Credential
from registry_spooler.registry.origins import TargetRules
from registry_spooler.registry.scopes import covers
from registry_spooler.registry.tokens import TOKEN_MAX_BYTES, Realm, Token, get_request, post_request
from registry_spooler.registry.transport import Answer, Request, Transport

TOKENS_KEPT: Final = 1024
_REDIRECTS_MAX: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
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
        """The OAuth2 form, where there is a token for it; None when the plain form has to be tried."""
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
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            target = self._rules.realm(request.url, location)
            headers = dict(request.headers) if Origin.of(target) == Origin.of(request.url) else {}
            request = dataclasses.replace(request, url=target, headers=headers)
        raise RegistryProtocolError(
            self._rules.show(str(Origin.of(request.url))), "the token server redirects without end"
        )

    def _refused(self, answer: Answer, login: Credential | None) -> RegistryError:
        """The token server's refusal. It is of the login, and never of an image."""
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

"""Logging in to one registry: what a 401 asks for is sent, and only where it was asked for.

Several headers, several challenges in one header, quoted strings with commas and escapes, parameters left out.
https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1

A 401 can come from any request. Bearer goes before Basic; a registry that then wants Basic for some of its
parts (Harbor's catalog) gets it for these. A login that was refused is followed by the next candidate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from registry_spooler.errors import AccessDenied
from registry_spooler.registry.address import RegistryAddress
from registry_spooler.registry.auth.credentials import CredentialSource
from registry_spooler.registry.auth.tokens import Realm, TokenServers, basic_header, merge
from registry_spooler.registry.http.http_client import Access
from registry_spooler.registry.http.known_secrets import Credential
from registry_spooler.registry.http.transport import Answer, Transport
from registry_spooler.registry.http.trust import TargetRules

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER: Final = re.compile(rf'({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))\s*(?:,|$)')
_SCHEME: Final = re.compile(rf"({_WORD})(?:[ \t]+(?!,)|(?=[ \t]*(?:,|$)))")
_TOKEN68: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?:,|$)")
"""What some schemes have in place of parameters; `name=value` is none, as something follows the sign there."""
_GAP: Final = re.compile(r"[\s,]*")
_ESCAPED: Final = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge; scheme and parameter names are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def scopes(self) -> tuple[str, ...]:
        """What a Bearer challenge says the request needs."""
        return tuple(self.parameters.get("scope", "").split())


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """All challenges in the order in which they were sent; what cannot be read ends its header."""
    return tuple(challenge for header in headers for challenge in _parse(header))


def _parse(header: str) -> Iterator[Challenge]:
    position = _skip(header, 0)
    while scheme := _SCHEME.match(header, position):
        position = scheme.end()
        parameters: dict[str, str] = {}
        if word := _TOKEN68.match(header, position):
            position = word.end()
        position = _skip(header, position)
        while found := _PARAMETER.match(header, position):
            quoted, plain = found[2], found[3]
            value = _ESCAPED.sub(r"\1", quoted) if quoted is not None else plain
            parameters.setdefault(found[1].lower(), value)
            position = _skip(header, found.end())
        yield Challenge(scheme[1].lower(), parameters)


def _skip(header: str, position: int) -> int:
    gap = _GAP.match(header, position)
    return gap.end() if gap else position


@dataclass(slots=True)
class AuthScheme:
    """How requests for one kind of access log in. `realm` is None for Basic."""

    realm: Realm | None
    scopes: tuple[str, ...] = ()
    refused: set[Credential] = field(default_factory=set)


class RegistryLogin:
    """The credentials of one registry, and what it has asked for so far."""

    def __init__(
        self, address: RegistryAddress, transport: Transport, rules: TargetRules, source: CredentialSource | None
    ) -> None:
        self._address = address
        self._rules = rules
        self._source = source
        self._tokens = TokenServers(transport, rules)
        self._usual: AuthScheme | None = None
        self._special: dict[Access, AuthScheme] = {}
        self._has_login = False

    @property
    def hint(self) -> str:
        """Why there may be no login, for the sentence of a refusal; empty when nothing special is known."""
        return self._source.hint(self._address.spellings) if self._source is not None else ""

    @property
    def is_anonymous(self) -> bool:
        """Return whether there was no login for this registry when it was last asked for one."""
        return not self._has_login

    async def header(self, access: Access) -> str | None:
        """What `Authorization` says to the registry's own origin; None while nobody asked for it."""
        scheme = self._special.get(access, self._usual)
        if scheme is None:
            return await self._registry_token(access)
        return await self._header(scheme, access, other_than=None)

    async def answer_challenge(self, answer: Answer, access: Access, used: str | None, logins: int) -> bool:
        """Learn from a 401; True when the same request is worth sending again.

        `logins` is how often that was so for this request: a fresh token that is refused is final, but for a
        registry that asks for Basic after Bearer.
        """
        challenges = parse_challenges(answer.headers.getall("WWW-Authenticate", []))
        scheme = self._understand(answer, challenges, access, used, logins)
        if scheme is None:
            return False
        header = await self._header_or_next(scheme, access, used, challenges)
        if header is None or header == used:
            return False
        self._remember(access, scheme)
        return True

    def is_taken(self, answer: Answer) -> bool:
        """Return whether a 401 says that the login is good, and does not extend to what was asked for.

        An anonymous token that does not extend to it says nothing: what is wanted is a login.
        https://www.rfc-editor.org/rfc/rfc6750#section-3.1
        """
        challenges = parse_challenges(answer.headers.getall("WWW-Authenticate", []))
        insufficient = any(each.parameters.get("error") == "insufficient_scope" for each in challenges)
        token = answer.request.headers.get("Authorization", "").removeprefix("Bearer ")
        return insufficient and self._tokens.is_of_login(token)

    def _understand(
        self, answer: Answer, challenges: tuple[Challenge, ...], access: Access, used: str | None, logins: int
    ) -> AuthScheme | None:
        bearer = next((each for each in challenges if each.scheme == "bearer" and "realm" in each.parameters), None)
        has_basic = any(each.scheme == "basic" for each in challenges)
        if bearer is not None and logins == 0:
            realm = Realm(
                self._rules.realm(answer.url, bearer.parameters["realm"]), bearer.parameters.get("service", "")
            )
            return AuthScheme(realm, scopes=bearer.scopes)
        was_basic = used is not None and used.startswith("Basic ")
        if has_basic and (logins == 0 or not was_basic):
            return AuthScheme(None)
        return None

    async def _header_or_next(
        self, scheme: AuthScheme, access: Access, used: str | None, challenges: tuple[Challenge, ...]
    ) -> str | None:
        """The header for the first login that is not refused; from Bearer to Basic when no token can be had."""
        while True:
            try:
                return await self._header(scheme, access, other_than=used)
            except AccessDenied:
                login = await self._login(scheme, access, fresh=True)
                if login is not None:
                    scheme.refused.add(login)
                if login is not None and await self._login(scheme, access) is not None:
                    continue
                if scheme.realm is None or all(each.scheme != "basic" for each in challenges):
                    raise
                scheme.realm = None
                scheme.refused.clear()

    async def _header(self, scheme: AuthScheme, access: Access, other_than: str | None) -> str | None:
        login = await self._login(scheme, access, fresh=other_than is not None)
        if login is not None and login.registry_token:
            return f"Bearer {login.registry_token}"
        if scheme.realm is None:
            if login is not None and other_than == basic_header(login.username, login.password):
                scheme.refused.add(login)
                login = await self._login(scheme, access)
            return basic_header(login.username, login.password) if login is not None else None
        refused = other_than.removeprefix("Bearer ") if other_than is not None else None
        scopes = merge(access, scheme.scopes)
        try:
            return "Bearer " + await self._tokens.token(scheme.realm, scopes, login, other_than=refused)
        except AccessDenied as exc:
            exc.hint = self.hint or exc.hint
            raise

    def _remember(self, access: Access, scheme: AuthScheme) -> None:
        if self._usual is None or (self._usual.realm is not None and scheme.realm is not None):
            self._usual = AuthScheme(scheme.realm, refused=scheme.refused)
        self._special.pop(access, None)
        if scheme.realm != self._usual.realm or merge(access, scheme.scopes) != merge(access):
            self._special[access] = scheme

    async def _registry_token(self, access: Access) -> str | None:
        """A token for the registry itself needs no challenge; anything else waits for one."""
        login = await self._login(None, access)
        return f"Bearer {login.registry_token}" if login is not None and login.registry_token else None

    async def _login(self, scheme: AuthScheme | None, access: Access, *, fresh: bool = False) -> Credential | None:
        if self._source is None:
            return None
        repository = access[0].partition(":")[2].rpartition(":")[0] if access else ""
        candidates = await self._source.candidates(self._address.spellings, repository, fresh=fresh)
        self._has_login = bool(candidates)
        for login in candidates:
            self._rules.secrets.learn_login(login)
        refused = scheme.refused if scheme is not None else ()
        return next((login for login in candidates if login not in refused), None)

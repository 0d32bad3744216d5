"""One login to a registry, and how its secrets are kept out of what others say.

A registry, a token server or a proxy may repeat what it was sent, in an error's message or code, in a realm's path or a
Location. Such text is shown to people and written to logs and records, so the values in use are replaced in it, in
every form in which they travel; and before anything is cut off, since a part of a secret is not found any more.
"""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, quote_plus, unquote, unquote_plus


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One login: a name and a password, an identity token for the token server, or a token for the registry itself."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def is_empty(self) -> bool:
        """Return whether it holds no secret."""
        return not (self.password or self.identity_token or self.registry_token)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that must never be shown."""
        return tuple(text for text in (self.password, self.identity_token, self.registry_token) if text)


TOKENS_KEPT: Final = 64
"""The newest: tokens live for minutes, and an answer repeats the one that it was asked with."""
LOGINS_KEPT: Final = 256
SHORTEST: Final = 3
"""Anything shorter occurs in half of all words."""
HIDDEN: Final = "…"


class KnownSecrets:
    """The secrets of one client, including past ones that may still be repeated."""

    def __init__(self) -> None:
        self._logins: dict[str, tuple[str, ...]] = {}
        self._tokens: dict[str, tuple[str, ...]] = {}

    def __repr__(self) -> str:
        return f"<{len(self._logins) + len(self._tokens)} secrets>"

    def learn_login(self, login: Credential) -> None:
        """Hide a login's secrets, and its `Authorization` header, from now on."""
        for secret in login.secrets:
            _learn(self._logins, secret, LOGINS_KEPT)
        for secret in (login.password, login.identity_token):
            if secret:
                plain = f"{login.username or '<token>'}:{secret}".encode()
                _learn(self._logins, base64.b64encode(plain).decode().rstrip("="), LOGINS_KEPT)
                _learn(self._logins, base64.urlsafe_b64encode(plain).decode().rstrip("="), LOGINS_KEPT)

    def learn_token(self, *tokens: str) -> None:
        """Hide tokens that a server gave out, from now on."""
        for token in tokens:
            _learn(self._tokens, token, TOKENS_KEPT)

    @property
    def longest(self) -> int:
        """The length of the longest form: a text that was cut may end with that much of a secret."""
        return max(
            (len(form) for known in (self._logins, self._tokens) for each in known.values() for form in each), default=0
        )

    def hide(self, text: str) -> str:
        """Return the text with every secret replaced; all of it, if it holds a secret in an unusual encoding."""
        lower = text.lower()
        for known in (self._logins, self._tokens):
            for forms in known.values():
                for form in forms:
                    if form.lower() in lower:
                        text = re.sub(re.escape(form), HIDDEN, text, flags=re.IGNORECASE)
                        lower = text.lower()
        if "%" not in text:
            return text
        plain = (unquote(text).lower(), unquote_plus(text).lower())
        values = (value.lower() for known in (self._logins, self._tokens) for value in known)
        return HIDDEN if any(value in each for value in values for each in plain) else text


def _learn(known: dict[str, tuple[str, ...]], secret: str, kept: int) -> None:
    if len(secret) < SHORTEST or secret in known:
        return
    forms = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), html.escape(secret)}
    forms |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    known[secret] = tuple(sorted(forms, key=len, reverse=True))
    while len(known) > kept:
        del known[next(iter(known))]

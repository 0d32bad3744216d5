"""What a 401 asks for: `WWW-Authenticate`, read with all that is legal in it.

Several headers, several challenges in one header, quoted strings with commas and escapes, parameters left out.
https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER: Final = re.compile(rf'({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))\s*(?:,|$)')
_SCHEME: Final = re.compile(rf"({_WORD})(?:\s+|\s*,|\s*$)")
_TOKEN68: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*\s*(?:,|$)")
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
    while position < len(header):
        scheme = _SCHEME.match(header, position)
        if scheme is None:
            return
        position = _skip(header, scheme.end())
        parameters: dict[str, str] = {}
        bare = _TOKEN68.match(header, position)
        while found := _PARAMETER.match(header, position):
            quoted, plain = found[2], found[3]
            value = _ESCAPED.sub(r"\1", quoted) if quoted is not None else plain
            parameters.setdefault(found[1].lower(), value)
            position = _skip(header, found.end())
        if not parameters and bare is not None and not _SCHEME_START.match(header, position):
            position = _skip(header, bare.end())
        yield Challenge(scheme[1].lower(), parameters)


_SCHEME_START: Final = re.compile(rf"{_WORD}\s+{_WORD}\s*=|(?:Basic|Bearer|Digest|Negotiate|NTLM)\b", re.IGNORECASE)
"""Where the next challenge begins, rather than the one credential-like word that some schemes have."""


def _skip(header: str, position: int) -> int:
    gap = _GAP.match(header, position)
    return gap.end() if gap else position

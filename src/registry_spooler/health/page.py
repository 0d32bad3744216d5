"""The page for people: one file, checked in as it is served, and the policy that lets a browser run nothing else.

The policy names the style and the script of the page by their hashes, so text that got into the page by any way
could not become either. https://www.w3.org/TR/CSP3/#grammardef-hash-source
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

_STYLE: Final = re.compile(rb"<style>(.*?)</style>", re.DOTALL)
_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Page:
    """The page's bytes and its content security policy."""

    content: bytes
    policy: str

    @classmethod
    def read(cls) -> Page:
        """Read it from the package. Blocking; a few KiB."""
        content = files("registry_spooler.health").joinpath("page.html").read_bytes()
        policy = "; ".join(
            (
                "default-src 'none'",
                f"style-src {_hashes(_STYLE, content)}",
                f"script-src {_hashes(_SCRIPT, content)}",
                "connect-src 'self'",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            )
        )
        return cls(content, policy)


def _hashes(element: re.Pattern[bytes], content: bytes) -> str:
    digests = (hashlib.sha256(found).digest() for found in element.findall(content))
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

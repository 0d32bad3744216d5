"""Lists in pages: the catalog of repositories and the tags of one.

`Link` alone says whether there is more, and leads only to the same origin.
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-tags
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import orjson

from registry_spooler.errors import RegistryAnswer, RegistryProtocolError
from registry_spooler.registry.exchange import Access, Exchange
from registry_spooler.registry.transport import Answer

PAGE_ENTRIES: Final = 1000
"""The most that distribution takes; a registry that refuses it is asked for a page of its own liking."""
PAGES_MAX: Final = 10_000
PAGE_BYTES: Final = 64 << 20
"""Distribution 2.8 sends all tags at once, however many: this does for a million."""
_NO_CATALOG: Final = frozenset({401, 403, 404, 405})
_LINK: Final = re.compile(r'<([^<>]*)>\s*((?:;\s*[\w!#$&+.^`|~-]+\s*(?:=\s*(?:"[^"]*"|[^\s";,]+))?\s*)*)')
_NEXT: Final = re.compile(r';\s*rel\s*=\s*(?:"[^"]*\bnext\b[^"]*"|next\b)', re.IGNORECASE)


async def list_repositories(exchange: Exchange) -> AsyncGenerator[str, None]:
    """Every repository that these credentials may see; the catalog is no part of the OCI specification."""
    url, access = exchange.address.url("_catalog"), ("registry:catalog:*",)
    try:
        async with aclosing(_entries(exchange, url, "repositories", access)) as entries:
            async for name in entries:
                yield name
    except RegistryAnswer as error:
        if error.status in _NO_CATALOG:
            # To a wrong password many answer just what others answer to everybody who asks for a catalog.
            wrong_login = f"{error.hint}; or " if error.status == 401 and error.hint else ""
            error.hint = f"{wrong_login}this registry offers no catalog of its repositories, or not to this login"
        raise


async def list_tags(exchange: Exchange, repository: str, access: Access) -> AsyncGenerator[str, None]:
    """Every tag of a repository; NotFound when there is no such repository."""
    async with aclosing(
        _entries(exchange, exchange.address.url(repository, "tags", "list"), "tags", access)
    ) as entries:
        async for tag in entries:
            yield tag


async def _entries(exchange: Exchange, url: str, key: str, access: Access) -> AsyncGenerator[str, None]:
    answer = await _first_page(exchange, url, access)
    previous: list[str] = []
    for _ in range(PAGES_MAX):
        entries = _read(exchange, answer, key)
        for entry in entries:
            yield entry
        link = next_link(answer.headers.getall("Link", []))
        if link is None or (entries and entries == previous):
            return
        previous = entries
        answer = await exchange.call(
            "GET", exchange.rules.page(answer.url, link), access=access, expected={200}, limit_bytes=PAGE_BYTES
        )


async def _first_page(exchange: Exchange, url: str, access: Access) -> Answer:
    try:
        return await exchange.call(
            "GET", f"{url}?n={PAGE_ENTRIES}", access=access, expected={200}, limit_bytes=PAGE_BYTES
        )
    except RegistryAnswer as error:
        if error.status != 400:
            raise
    return await _page(exchange, url, access)


async def _page(exchange: Exchange, url: str, access: Access) -> Answer:
    return await exchange.call("GET", url, access=access, expected={200}, limit_bytes=PAGE_BYTES)


def next_link(headers: list[str]) -> str | None:
    """The target of `rel="next"` among `Link` headers (RFC 8288), as it stands there."""
    for header in headers:
        for match in _LINK.finditer(header):
            if _NEXT.search(match[2]):
                return match[1]
    return None


def _read(exchange: Exchange, answer: Answer, key: str) -> list[str]:
    try:
        document: Any = orjson.loads(answer.content)
        entries = document.get(key) or []
        return [entry for entry in entries if isinstance(entry, str)]
    except (orjson.JSONDecodeError, AttributeError, TypeError) as exc:
        raise RegistryProtocolError(str(exchange.address), f"what should be a list of {key} is none") from exc

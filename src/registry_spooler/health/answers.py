"""Which path answers what. Answers are made from memory; only after a rest they wait, briefly, for fresh facts.

| path | answer |
| --- | --- |
| `/` | the page for people |
| `/live`, `/healthz` | 200 or 503, and the checks that a restart could mend |
| `/ready` | 200 or 503, and all checks; little room is a warning among them, and decides nothing |
| `/metrics` | the metrics |
| `/status` | the status as JSON; the metrics for a scraper |
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from registry_spooler.health.accept import is_scraper
from registry_spooler.health.check import Check
from registry_spooler.health.checks import Checks
from registry_spooler.health.lookouts import Lookouts
from registry_spooler.health.metrics import Metrics
from registry_spooler.health.page import Page
from registry_spooler.health.safe_json import safe_json
from registry_spooler.health.status import Status

FOR_OWN_NAMES: Final = frozenset({"/", "/status"})
"""What tells of files: not answered to a foreign `Host`. Probes and scrapers may come by any name."""

_JSON: Final = "application/json"
_NOTHING_ALLOWED: Final = "default-src 'none'; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, a body and its type; `headers` are those that differ from answer to answer."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    policy: str = _NOTHING_ALLOWED


class Answers:
    """Answers by path; `None` for a path that has none."""

    def __init__(self, page: Page, checks: Checks, metrics: Metrics, status: Status, lookouts: Lookouts) -> None:
        self._page, self._checks, self._metrics, self._status = page, checks, metrics, status
        self._lookouts = lookouts
        self._paths: Final[Mapping[str, Callable[[str], Awaitable[Answer]]]] = MappingProxyType(
            {
                "/": self._show_page,
                "/live": self._live,
                "/healthz": self._live,
                "/ready": self._ready,
                "/metrics": self._show_metrics,
                "/status": self._show_status,
            }
        )

    def find(self, path: str) -> Callable[[str], Awaitable[Answer]] | None:
        """What answers a path, given the request's `Accept`."""
        return self._paths.get(path)

    async def _show_page(self, _accept: str) -> Answer:
        return Answer(200, "text/html; charset=utf-8", self._page.content, policy=self._page.policy)

    async def _live(self, _accept: str) -> Answer:
        self._lookouts.want_pulse()
        self._checks.look()
        return _probe(self._checks.is_live, self._checks.live)

    async def _ready(self, _accept: str) -> Answer:
        await self._lookouts.refresh()
        self._checks.look()
        return _probe(self._checks.is_ready, (*self._checks.live, *self._checks.ready))

    async def _show_metrics(self, accept: str) -> Answer:
        await self._lookouts.refresh()
        body, content_type = self._metrics.exposition(accept)
        return Answer(200, content_type, body, {"Vary": "Accept"})

    async def _show_status(self, accept: str) -> Answer:
        if is_scraper(accept):
            return await self._show_metrics(accept)
        await self._lookouts.refresh()
        return Answer(200, _JSON, self._status.to_bytes(), {"Vary": "Accept"})


def refusal(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer to what is not answered here. Nothing of the request is repeated in it."""
    return Answer(status, _JSON, safe_json({"error": reason}), headers or {})


def _probe(passing: bool, checks: tuple[Check, ...]) -> Answer:
    document = {"status": "ok" if passing else "failing", "checks": {check.name: check.to_json() for check in checks}}
    return Answer(200 if passing else 503, _JSON, safe_json(document))

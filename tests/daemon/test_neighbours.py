"""The real daemon and the real registry, with something else answering in the registry's place for a while."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.error
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from support.programs.running_spooler import RunningSpooler, Spool
from support.registries.faultproxy import Fault, running_proxy
from support.registries.lyingserver import body_of, lying, page
from support.registries.running_registry import RunningRegistry

FILES, REPOSITORIES = 120, 12
HTML = [("Content-Type", "text/html")]
NEIGHBOURS = {
    "a web page": (200, HTML, b"<html>It works!</html>"),
    "a redirect to itself": (307, [("Location", "/v2/")], b""),
    "201 for everything": (201, [("Location", "/somewhere")], b""),
    "a login that is refused": (401, [("WWW-Authenticate", 'Basic realm="registry"')], b""),
}


def _name(number: int) -> str:
    return f"neighbours\\app{number % REPOSITORIES}:{number:03}"


def _ready(spooler: RunningSpooler) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(spooler.health_url + "/ready", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def _wait_until_ready(spooler: RunningSpooler, status: int, spool: Spool) -> str:
    found: list[str] = []

    def reached() -> bool:
        code, body = _ready(spooler)
        found.append(body)
        return code == status

    spool.wait_until(reached)
    return found[-1]


def _status(spooler: RunningSpooler) -> dict[str, Any]:
    with urllib.request.urlopen(spooler.health_url + "/status", timeout=10) as answer:
        return dict(json.load(answer))


def _attempts(spooler: RunningSpooler) -> list[int]:
    document = _status(spooler)
    assert document["spool"]["failed_files"] == 0
    return [file["attempts"] for file in document["deferred"]]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("neighbour", NEIGHBOURS)
async def test_good_files_wait_for_a_neighbour_to_go_and_then_all_go_through_in_order(
    registry: RunningRegistry, tmp_path: Path, neighbour: str
) -> None:
    spool = Spool(tmp_path / "spool")
    for number in range(FILES):
        spool.drop(_name(number), f"{neighbour} {number}".encode())
    fault = Fault(times=1 << 30, answer=NEIGHBOURS[neighbour])
    login = {"REGISTRY_SPOOLER_USERNAME": "user", "REGISTRY_SPOOLER_PASSWORD": "pass"}
    async with running_proxy(registry.host, fault) as proxy:
        spooler = RunningSpooler(spool, proxy.url, environment=login)
        await asyncio.to_thread(spooler.start)
        try:
            body = await asyncio.to_thread(_wait_until_ready, spooler, 503, spool)
            await asyncio.to_thread(spool.wait_until, lambda: _attempts(spooler))
            seen = len(proxy.seen)
            await asyncio.to_thread(spool.wait_until, lambda: len(proxy.seen) > seen)
            attempts = await asyncio.to_thread(_attempts, spooler)
            assert len(attempts) <= 4  # those that ran when it was found out, and no others
            assert set(attempts) == {1}
            assert json.loads(body)["checks"]["registry"]["state"] == "failing"
            fault.times = 0
            await asyncio.to_thread(
                spool.wait_until, lambda: len(list((spool.folder / ".receipts").iterdir())) == FILES, 120
            )
            await asyncio.to_thread(_wait_until_ready, spooler, 200, spool)
        finally:
            await asyncio.to_thread(spooler.terminate)
    assert list((spool.folder / ".failed").iterdir()) == []
    finished = defaultdict(list)
    for number in range(FILES):
        receipt = json.loads((spool.folder / ".receipts" / f"{_name(number)}.json").read_bytes())
        assert receipt["attempts"] <= 2
        finished[number % REPOSITORIES].append(receipt["finished"])
    for times in finished.values():
        assert times == sorted(times)


PASSWORD = "s3cret/of the+registry"
BASIC = base64.b64encode(f"user:{PASSWORD}".encode()).decode()


async def _repeat(head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A registry that says the login again in all that it refuses; now for good, now for a while."""
    await body_of(head, reader)
    mark = "Docker-Distribution-Api-Version: registry/2.0\r\n"
    if BASIC not in head:
        writer.write(page(401, mark + 'WWW-Authenticate: Basic realm="x"\r\n'))
    elif head.startswith("GET /v2/ "):
        writer.write(page(200, mark, b"{}"))
    else:
        entry = {"code": f"X {BASIC}", "message": f"not with {PASSWORD}, {quote(PASSWORD, safe='')} or {BASIC}"}
        status = 413 if "/failing/" in head.split("\r\n")[0] else 507
        writer.write(page(status, mark, json.dumps({"errors": [entry]}).encode()))


async def test_no_secret_that_a_registry_repeats_is_in_log_status_or_record(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.drop("failing\\app", b"1")
    spool.drop("waiting\\app", b"2")
    login = {"REGISTRY_SPOOLER_USERNAME": "user", "REGISTRY_SPOOLER_PASSWORD": PASSWORD}
    async with lying(_repeat) as url:
        spooler = RunningSpooler(spool, url, "-vv", environment=login)
        await asyncio.to_thread(spooler.start)
        try:
            record = await asyncio.to_thread(spool.failure, "failing\\app")
            await asyncio.to_thread(spool.wait_until, lambda: _status(spooler)["deferred"])
            status = await asyncio.to_thread(_status, spooler)
        finally:
            await asyncio.to_thread(spooler.terminate)
    assert "not with …, … or …" in record["error"]
    assert "not with …, … or …" in str(status["deferred"])
    shown = "".join([*(spooler.log or ()), json.dumps(record), json.dumps(status)])
    for secret in (PASSWORD, BASIC.rstrip("="), quote(PASSWORD, safe="")):
        assert secret not in shown

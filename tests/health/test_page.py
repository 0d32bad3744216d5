"""The page in a real browser: what it shows, what a screen reader is given, and what hostile names do not do to it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import Chromium, Tab, tab_of
from health_port import HealthPort
from scripted_state import ScriptedState, busy_state, deferred, failure, receipt, running, waiting

from registry_spooler.health.remote import RemoteTransfer
from registry_spooler.progress import Progress
from registry_spooler.spool.directory.workdir import Capacity
from registry_spooler.spool.state import OddEntryShown

PHONE, DESK = 390, 1280


def fill(state: ScriptedState, other: ScriptedState) -> None:
    """Show what another state shows, beside the registry as it was found."""
    state.__dict__.update({key: value for key, value in vars(other).items() if key not in {"on_job_end", "registry"}})


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    with Chromium() as running:
        yield running


@asynccontextmanager
async def page(browser: Chromium, port: HealthPort, *, width: int = DESK, dark: bool = False) -> AsyncIterator[Tab]:
    """The page, drawn once. Leaving it, nothing may have been complained about."""
    async with tab_of(browser) as tab:
        await tab.open(port.url + "/", width=width, dark=dark)
        await tab.drawn()
        yield tab
        assert [] == tab.complaints


async def text(tab: Tab, selector: str) -> str:
    found: str = await tab.evaluate(f"document.querySelector({selector!r}).innerText")
    return found


def named(nodes: list[dict[str, Any]], role: str) -> list[str]:
    """The accessible names of all nodes of a role."""
    return [node["name"]["value"] for node in nodes if node.get("role", {}).get("value") == role and "name" in node]


async def test_it_shows_what_runs_waits_failed_and_is_done(
    browser: Chromium, port: HealthPort, state: ScriptedState
) -> None:
    fill(state, busy_state())
    async with page(browser, port) as tab:
        assert "Pushing" == await text(tab, "#state")
        assert ["3", "3", "1", "1", "1\u202f299"] == await tab.evaluate(
            "[...document.querySelectorAll('#figures dd')].map((box) => box.textContent)"
        )
        shown = await text(tab, "#running")
        assert "team/shop/api:2026.11.3" in shown
        assert "395.8 MiB of 1.2 GiB · 30 %" in shown
        assert "@release-26.11.tar" in shown
        assert "attempt 2" in shown
        assert "'Team' has upper-case letters" in await text(tab, "#failed")
        assert "503" in await text(tab, "#deferred")
        assert "team/worker-1:latest" in await text(tab, "#waiting")
        assert ["registry.k8s.io/pause:3.10", "team/shop/web:2026.11.2", "alpine:3.22"] == await tab.evaluate(
            "[...document.querySelectorAll('#done th bdi')].map((name) => name.textContent)"
        )
        assert "backups" in await text(tab, "#odd")
        assert "(1 failed) Pushing \u2013 Registry Spooler" == await tab.evaluate("document.title")


async def test_an_empty_spool_says_what_to_do(browser: Chromium, port: HealthPort) -> None:
    async with page(browser, port) as tab:
        assert "Ready" == await text(tab, "#state")
        assert "Nothing is being pushed." in await text(tab, "main")
        assert "Copy an archive into the spool" in await text(tab, "main")
        for gone in ("#failed", "#deferred", "#waiting", "#odd"):
            assert await tab.evaluate(f"document.querySelector('{gone}').closest('section').hidden")


async def test_it_shows_transfers_of_callers_from_outside(browser: Chromium, port: HealthPort) -> None:
    push = RemoteTransfer(command="receive", reference="app:v1", progress=Progress(bytes_total=1000, bytes_done=250))
    port.remote.transfers = [push, RemoteTransfer(command="pull", reference="web:v2", ahead=2)]
    async with page(browser, port) as tab:
        shown = await text(tab, "#remote")
        assert "app:v1" in shown
        assert "250 B of 1000 B · 25 %" in shown
        assert "waits for 2 others" in shown
        port.remote.transfers = []
        await tab.until("document.querySelector('#remote').closest('section').hidden")


async def test_it_is_live_without_reloading(browser: Chromium, port: HealthPort, state: ScriptedState) -> None:
    progress = Progress(bytes_total=1_000_000, bytes_done=250_000)
    state.running_jobs = [running("app.tar", "app:latest", progress=progress)]
    async with page(browser, port) as tab:
        await tab.evaluate("document.querySelector('#running li').dataset.kept = 'yes'")
        await tab.until("document.querySelector('progress').value === 250000")

        progress.bytes_done = 750_000
        await tab.until("document.querySelector('progress').value === 750000")

        assert "yes" == await tab.evaluate("document.querySelector('#running li').dataset.kept")  # the same node still
        state.running_jobs = []
        state.receipts.append(receipt("app:latest", seconds_ago=0))
        state.jobs["push", "done"] += 1
        await tab.until("document.querySelector('#done th bdi').textContent === 'app:latest'")
        assert "1 file is done." == await text(tab, "#spoken")


async def test_trouble_is_shown_and_said_once(browser: Chromium, port: HealthPort, state: ScriptedState) -> None:
    async with page(browser, port) as tab:
        assert "" == await text(tab, "#spoken")

        state.writable.set(False, "the spool cannot be written to: No space left on device")
        await tab.until("document.querySelector('#state').textContent === 'Not ready'")

        assert "the spool cannot be written to: No space left on device" == await text(tab, "#notice")
        assert "The spooler is not ready." == await text(tab, "#spoken")
        assert "Spool writable: the spool cannot be written to" in await text(tab, "#checks")


async def test_little_room_is_a_warning_on_a_page_that_says_ready(browser: Chromium, port: HealthPort) -> None:
    async with page(browser, port) as tab:
        port.health.checks._volume.capacity = Capacity(free_bytes=4_096, size_bytes=1 << 30)
        await tab.until("document.querySelector('#checks li.warn') !== null")

        assert "Space in the spool: the volume has only 4.0 KiB left" in await text(tab, "#checks li.warn")
        assert "1.0 GiB of 1.0 GiB used, 4.0 KiB free" == await text(tab, "#room")
        assert "Ready" == await text(tab, "#state")


async def test_which_file_keeps_its_repository_waiting(
    browser: Chromium, port: HealthPort, state: ScriptedState
) -> None:
    state.deferred_files = [deferred("app:1.tar", "app:1", "the registry answered 500")]
    state.waiting_files = [
        waiting("app:2.tar", "app:2", seconds=5, behind="app:1.tar"),
        waiting("other.tar", "other:latest"),
    ]
    async with page(browser, port) as tab:
        shown = await text(tab, "#deferred")
        assert re.search(r"for \d+ s", shown)
        assert "the registry answered 500; 1 later file waits for it" in shown
        assert 1 == (await text(tab, "#waiting")).count("behind app:1.tar")


async def test_a_screen_reader_is_given_headings_bars_and_a_table(
    browser: Chromium, port: HealthPort, state: ScriptedState
) -> None:
    fill(state, busy_state())
    async with page(browser, port) as tab:
        nodes = await tab.spoken()

        headings = [name.rstrip("0123456789") for name in named(nodes, "heading")]
        assert [
            "Registry Spooler",
            "Running",
            "Failed",
            "Deferred",
            "Waiting",
            "Done",
            "Health",
            "Space in the spool",
            "Ignored",
        ] == headings
        assert ["team/shop/api:2026.11.3: progress", "@release-26.11.tar: progress"] == [
            name for name in named(nodes, "progressbar") if name
        ]
        assert ["The newest first, since this process started"] == named(nodes, "table")
        assert ["Image", "Digest", "Size", "Sent", "Took", "When"] == named(nodes, "columnheader")
        assert "Space in the spool" in named(nodes, "meter")
        assert 1 == len([node for node in nodes if node["role"]["value"] == "status"])


def hostile_names() -> list[str]:
    return [
        "<img src=x onerror=window.owned=1>",
        "<script>window.owned=1</script>",
        "'\"><svg onload=window.owned=1>",
        "</title><style>body{display:none}</style>",
        "javascript:window.owned=1",
        "\u202egnp.exe\u2066\x1b[2J\x07",
        "${window.owned=1}{{7*7}}&lt;b&gt;",
        "a" * 255,
    ]


async def test_hostile_names_are_only_text(
    browser: Chromium, port: HealthPort, state: ScriptedState, tmp_path: Path
) -> None:
    names = hostile_names()
    state.running_jobs = [running(name, None, progress=Progress(bytes_total=10, bytes_done=5)) for name in names]
    state.waiting_files = [waiting(name, None) for name in names]
    state.deferred_files = [deferred(name, None, name) for name in names]
    state.failures.extend({**failure(name, name), "detail": name, "reference": name} for name in names)
    state.failed_count = len(names)
    state.receipts.extend({**receipt("app:1"), "file": name, "reference": name, "digest": name} for name in names)
    state.odd = tuple(OddEntryShown(name, name) for name in names)
    state.watching.set(False, names[0])
    async with page(browser, port, width=PHONE) as tab:
        assert await tab.evaluate("window.owned === undefined")
        assert 0 == await tab.evaluate(
            "document.querySelectorAll('main img, main script, main style, main svg').length"
        )
        shown = await text(tab, "main")
        for name in names[:5]:
            assert name in shown
        assert "\\u{202e}gnp.exe\\u{2066}\\u{1b}[2J\\u{7}" in shown
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e\u2066]", shown.replace("\t", ""))
        assert PHONE == await tab.evaluate("document.documentElement.scrollWidth")


async def test_the_policy_lets_nothing_else_run(browser: Chromium, port: HealthPort) -> None:
    async with tab_of(browser) as tab:
        await tab.open(port.url + "/", width=DESK)
        await tab.drawn()
        await tab.evaluate(
            """(() => {
                const script = document.createElement("script");
                script.textContent = "window.owned = 1";
                document.body.append(script);
                const image = document.createElement("div");
                image.innerHTML = "<img src=x onerror='window.owned = 2'>";
                document.body.append(image);
            })()"""
        )
        await tab.call("Runtime.evaluate", expression="new Promise((next) => setTimeout(next, 100))", awaitPromise=True)
        assert await tab.evaluate("window.owned === undefined")
        assert any("Content Security Policy" in complaint for complaint in tab.complaints)


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("dark", [False, True])
async def test_it_fits_and_can_be_read(
    browser: Chromium, port: HealthPort, state: ScriptedState, tmp_path: Path, width: int, dark: bool
) -> None:
    fill(state, busy_state())
    async with page(browser, port, width=width, dark=dark) as tab:
        assert width == await tab.evaluate("document.documentElement.scrollWidth")
        assert [] == await tab.evaluate(FAINT_TEXT)
        await tab.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


async def test_it_is_one_small_file_that_asks_for_nothing_elsewhere(port: HealthPort) -> None:
    _, content_type, content = await port.get("/")

    assert "text/html; charset=utf-8" == content_type
    assert len(content) < 32_768
    assert [] == re.findall(r"(?:src|href)=\"(?!status\"|metrics\"|data:)", content)
    assert [] == re.findall(r"\son\w+=|\sstyle=|@import|url\(", content)
    assert {"http://www.w3.org/2000/svg"} == set(re.findall(r"https?://[^'\"\s]+", content))


async def test_when_the_spooler_is_gone_it_says_so(browser: Chromium, port: HealthPort, state: ScriptedState) -> None:
    async with page(browser, port) as tab:
        await tab.call("Network.enable")
        await tab.call("Network.setBlockedURLs", urls=["*status*"])
        await tab.until("document.querySelector('#state').textContent === 'No answer'")
        assert "has not answered since" in await text(tab, "#notice")

        await tab.call("Network.setBlockedURLs", urls=[])
        await tab.until("document.querySelector('#state').textContent === 'Ready'")
        tab.events.clear()  # the browser's own complaints about what was blocked


FAINT_TEXT = """(() => {
    // Every visible text against the colour behind it, by the formula of WCAG 2.2 (1.4.3): at least 4.5 to 1.
    const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
        .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
    const behind = (node) => {
        for (; node; node = node.parentElement) {
            const colour = parse(getComputedStyle(node).backgroundColor);
            if (colour.length < 4 || colour[3] > 0) return colour;
        }
        return [255, 255, 255];
    };
    const faint = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const node = walk.currentNode.parentElement;
        const text = walk.currentNode.textContent.trim();
        if (!text || !node.checkVisibility() || node.closest("script, style, .unseen")) continue;
        const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
        const contrast = (a + 0.05) / (b + 0.05);
        if (contrast < 4.5) faint.push(`${text}: ${contrast.toFixed(2)}`);
    }
    return faint;
})()"""

"""The page in a real browser: what it shows, what a screen reader is given, and what hostile names do not do to it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from registry_spooler.health.remote import RemoteTransfer
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import ImageResult, Progress
from registry_spooler.spool.directory.workdir import Capacity
from registry_spooler.spool.state import OddEntryShown
from support.health.browser import Chromium, Tab, tab_of
from support.health.health_port import HealthPort
from support.health.scripted_state import ScriptedState, busy_state, deferred, failure, receipt, running, waiting

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


async def test_it_is_drawn_before_anything_else_is_asked_for(
    browser: Chromium, port: HealthPort, state: ScriptedState
) -> None:
    fill(state, busy_state())
    async with tab_of(browser) as tab:
        await tab.call("Network.enable")
        await tab.call("Network.setBlockedURLs", urls=["*status*"])
        await tab.open(port.url + "/", width=DESK)
        await tab.drawn()
        assert "team/shop/api:2026.11.3" in await text(tab, "#running")


async def test_a_running_job_has_a_rate_and_a_time_left_at_once(
    browser: Chromium, port: HealthPort, state: ScriptedState
) -> None:
    progress = Progress(bytes_total=100 << 20, bytes_done=30 << 20, bytes_skipped=10 << 20)
    state.running_jobs = [
        running("app.tar", "app:1", seconds=10, progress=progress),
        running("slow.txt", "slow:1", seconds=9, progress=Progress(bytes_total=90, bytes_done=40)),
        running("read.txt", "read:1", seconds=9, progress=Progress(bytes_total=100, bytes_done=100)),
    ]
    async with tab_of(browser) as tab:
        await tab.call("Network.enable")
        await tab.call("Network.setBlockedURLs", urls=["*status*"])
        await tab.open(port.url + "/", width=DESK)
        await tab.drawn()
        shown = await text(tab, "#running")
        assert re.search(r"30 % · [\d.]+ [KM]iB/s · about \d+ \w+ left · 10.0 MiB there already", shown)
        assert re.search(r"40 B of 90 B · 44 % · \d B/s · about \d+ \w+ left", shown)
        assert "100 B of 100 B · 100 %" == await text(tab, "#running li:last-child .below")  # nothing is left


async def test_figures_lead_to_their_lists(browser: Chromium, port: HealthPort, state: ScriptedState) -> None:
    fill(state, busy_state())
    state.waiting_files = []
    async with page(browser, port, width=PHONE) as tab:
        await tab.evaluate("[...document.querySelectorAll('#figures a')].find((a) => a.text === 'Failed').click()")
        assert "#failed-title" == await tab.evaluate("location.hash")
        assert await tab.evaluate("Math.abs(document.querySelector('#failed-title').getBoundingClientRect().top) < 100")
        assert [True, False, True, True, True] == await tab.evaluate(
            "[...document.querySelectorAll('#figures a')].map((link) => link.hasAttribute('href'))"
        )


async def test_digests_and_pull_references_can_be_copied(
    browser: Chromium, port: HealthPort, state: ScriptedState
) -> None:
    record = receipt("team/app:1")
    reference = f"127.0.0.1:5001/team/app:1@{record['digest']}"
    state.receipts.append({**record, "pull_reference": reference})
    async with page(browser, port) as tab:
        await tab.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        await tab.call("Page.bringToFront")
        for selector, copied in (("#done .digest .copy", record["digest"]), ("#done th .copy", reference)):
            await tab.evaluate(f"document.querySelector('{selector}').click()")
            await tab.until(f"document.querySelector('{selector}').textContent === 'copied'")
            assert copied == await tab.evaluate("navigator.clipboard.readText()")

        # A page that came over plain HTTP from another machine has no clipboard of this kind.
        await tab.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
        await tab.evaluate("document.addEventListener('copy', () => { window.copied = document.activeElement.value; })")
        await tab.evaluate("document.querySelector('#done .digest .copy').click()")
        assert record["digest"] == await tab.evaluate("window.copied")
        assert "Copied." == await text(tab, "#spoken")


def arguments_of(command: str) -> list[str]:
    """What `kubectl` is given by a shell that reads the command."""
    script = f"kubectl() {{ printf '%s\\0' \"$@\"; }}; {command}"
    done = subprocess.run(["bash", "-c", script], env={"LC_ALL": "C.UTF-8"}, capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


async def test_a_failed_file_has_the_very_commands(browser: Chromium, port: HealthPort, state: ScriptedState) -> None:
    names = ["team\\app:1.tar", "it's.tar", "-x \x1b[2J\u202e'\\.tar", "plain.tar"]
    state.failures.extend({**failure(name, "it is cut off"), "reference": "app:1"} for name in names)
    state.failures.append(failure("Team.tar", "'Team' has upper-case letters"))
    async with page(browser, port) as tab:
        commands = await tab.evaluate("[...document.querySelectorAll('#failed code')].map((code) => code.innerText)")
        copied = await tab.evaluate("[...document.querySelectorAll('#failed .copy')].map((one) => one.dataset.copy)")
    assert commands == copied
    assert "kubectl spool retry --as REPOSITORY:TAG Team.tar" == commands[0]
    for name, *both in zip(reversed(names), commands[2::2], commands[3::2], strict=True):
        for command, verb in zip(both, ("retry", "discard"), strict=True):
            assert ["spool", verb, name] == [argument for argument in arguments_of(command) if argument != "--"]


async def test_images_that_came_from_outside_are_among_what_is_done(browser: Chromium, port: HealthPort) -> None:
    saved = Progress(blobs_uploaded=1, uploaded_bytes=48 << 20, rebuilt_layers=1, saved_bytes=47 << 20)
    port.remote.ended(RemoteTransfer(command="rebuild", reference="team/app", progress=saved))
    pushed = ImageResult(reference=Reference.parse("team/app:2"), digest=Digest.of(b""), size_bytes=120 << 20)
    port.remote.ended(RemoteTransfer(command="receive", reference="team/app:2", result=pushed))
    async with page(browser, port) as tab:
        shown = await text(tab, "#done")
        assert "team/app:2" in shown
        assert "kubectl spool · 47.0 MiB saved by deltas" in shown
        assert re.search(r"120\.0 MiB\s+1\.0 MiB", shown)
        assert "Deltas have saved 47.0 MiB in 1 rebuilt layer." in await text(tab, "main")
        assert "1" == await tab.evaluate("document.querySelector('#figures div:last-child dd').textContent")


async def test_the_images_of_a_bundle_are_listed(browser: Chromium, port: HealthPort, state: ScriptedState) -> None:
    images = [{**receipt(name), "pull_reference": f"host/{name}"} for name in ("a:1", "b:2")]
    state.receipts.append({**receipt("@"), "file": "@all.tar", "reference": None, "digest": None, "images": images})
    async with page(browser, port) as tab:
        assert "2 images" in await text(tab, "#done")
        await tab.evaluate("document.querySelector('#done summary').click()")
        assert "a:1" in await text(tab, "#done")
        assert ["host/a:1", "host/b:2"] == await tab.evaluate(
            "[...document.querySelectorAll('#done li > .copy')].map((button) => button.dataset.copy)"
        )


async def test_ten_thousand_files_are_a_short_page(browser: Chromium, port: HealthPort, state: ScriptedState) -> None:
    state.waiting_files = [waiting(f"app-{number}.tar", f"app-{number}:1") for number in range(10_000)]
    async with page(browser, port, width=PHONE) as tab:
        assert 20 == await tab.evaluate("document.querySelectorAll('#waiting li').length")
        assert "and 9\u202f980 more" == await text(tab, "#waiting-more")
        assert PHONE == await tab.evaluate("document.documentElement.scrollWidth")


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
        assert 0.99 < await tab.evaluate("document.querySelector('#room-meter').value") < 1
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
            "Health",
            "Space in the spool",
            "Running",
            "Failed",
            "Deferred",
            "Waiting",
            "Done",
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
            "document.querySelectorAll('main img, main script, main style, main svg, #first *').length"
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
    content = re.sub(r'(id="first">).*?(</script>)', r"\1\2", content)

    assert "text/html; charset=utf-8" == content_type
    assert len(content) < 40_960
    assert [] == re.findall(r"(?:src|href)=\"(?!status\"|metrics\"|data:|#)", content)
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

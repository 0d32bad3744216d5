"""The status page of a daemon that has files in each state, in a browser, light and dark."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import PIL.Image

from pictures.pod_scene import PodScene, pod_scene
from support.cluster.terminal import Terminal
from support.health.browser import Chromium, tab_of
from support.images import archives
from support.images.archive_parts import Image, layer, make_tar
from support.registries.faultproxy import Fault

WIDTH_PIXELS = 1280
MIB = 1 << 20
SLOW = "shop/(api|worker)"
STARTING = 503, [("Content-Type", "application/json")], b'{"errors":[{"code":"UNAVAILABLE","message":"starting"}]}'
FAULTS = (
    Fault("PATCH", SLOW, times=1000, delay_seconds=0.4),
    Fault("", "models/weights", times=1000, answer=STARTING),
)
"""A slow link for two repositories, and one that the registry does not answer for."""
DONE = {"alpine:3.22": 3, "registry.k8s.io\\pause:3.10": 1, "shop\\web:2026.11.2": 24}
RUNNING = {"shop\\api:2026.11.3": 70, "shop\\worker:2026.11.3": 55}
WAITING = {"shop\\api:2026.11.4": 60, "tools\\backup:7": 12}


async def draw_page(paths: Iterable[Path]) -> None:
    """Write two pictures: light, and dark."""
    with TemporaryDirectory(prefix="pictures-") as folder:
        async with pod_scene(Path(folder), FAULTS, ("--queue", "2")) as scene:
            await _fill(scene)
            terminal = Terminal(scene.folder, scene.kubeconfig)
            for name, mib in (("search.tar", 9), ("dashboard.tar", 40)):
                (scene.folder / name).write_bytes(_archive(mib))
            await terminal.spool("push", "search.tar", "shop/search:v5", "--quiet")
            push = await terminal.start(
                ("kubectl-spool", "push", "dashboard.tar", "shop/dashboard:v5", "--rate-limit", "2M", "--quiet")
            )
            try:
                with Chromium() as browser:
                    for path, dark in zip(paths, (False, True), strict=True):
                        await _photograph(browser, scene, path, dark=dark)
            finally:
                with suppress(ProcessLookupError):
                    push.terminate()
                await push.communicate()


async def _photograph(browser: Chromium, scene: PodScene, path: Path, *, dark: bool) -> None:
    async with tab_of(browser) as tab:
        await tab.open(f"{scene.spooler.health_url}/", width=WIDTH_PIXELS, dark=dark)
        await tab.drawn()
        await tab.until(
            "[...document.querySelectorAll('#running li')].every((item) => item.innerText.includes('left'))"
        )
        await tab.until("document.querySelector('#remote li').innerText.includes('left')")
        await tab.screenshot(path)
        _shrink(path)
        if tab.complaints:
            raise RuntimeError("\n".join(tab.complaints))


def _shrink(path: Path) -> None:
    """Keep 256 colours, of which the page has few: a third of the size, and no difference to be seen."""
    with PIL.Image.open(path) as picture:
        few = picture.convert("RGB").quantize(256, dither=PIL.Image.Dither.NONE)
    few.save(path, optimize=True)


async def _fill(scene: PodScene) -> None:
    for name, mib in DONE.items():
        scene.spool.drop(f"{name}.tar", _archive(mib))
        await asyncio.to_thread(scene.spool.receipt, f"{name}.tar")
    scene.spool.drop("Shop\\Web.tar", b"")
    scene.spool.drop("shop\\search:4.tar.gz", _archive(1)[:100_000])
    scene.spool.drop("models\\weights:q4.tar", _archive(2))
    for name in ("Shop\\Web.tar", "shop\\search:4.tar.gz"):
        await asyncio.to_thread(scene.spool.failure, name)
    for name, mib in (RUNNING | WAITING).items():
        scene.spool.drop(f"{name}.tar", _archive(mib))


def _archive(mib: int) -> bytes:
    content = random.Random(mib).randbytes(mib * MIB)
    return archives.podman_docker(Image(layers=(layer(f"{mib} MiB"), make_tar([("model.bin", content)]))))

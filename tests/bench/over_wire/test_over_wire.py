"""`./dev bench --wire` itself: its line, its images, and a run with the stand-in for a cluster."""

from __future__ import annotations

import hashlib
import json
import socket
import tarfile
from pathlib import Path
from threading import Thread

import pytest

from bench.archives import MIB
from bench.over_wire.far_ends import stand_in
from bench.over_wire.link import BURST_SECONDS, Lane, Line, Link
from bench.over_wire.pieces_of_work import CHANGED, REBUILT, UNCHANGED, Amounts, WireBench
from bench.over_wire.wire_images import NEW, OLD, LayerShelf, write_archive
from bench.over_wire.wire_table import as_figures, table_lines

SMALL = Amounts(layer_bytes=MIB, packages_bytes=12 * MIB, large_bytes=MIB, people=2, person_bytes=MIB)


def test_pieces_follow_each_other_at_the_rate_and_arrive_after_the_delay() -> None:
    lane = Lane(Line(rate_bits=8000, round_trip_seconds=0.2))

    first = lane.send(10, 500)
    second = lane.send(10.1, 1000)

    assert (10 - BURST_SECONDS + 0.5, 10.5 - BURST_SECONDS + 0.1) == pytest.approx(first)
    assert (first[0] + 1, first[0] + 1.1) == pytest.approx(second)
    assert 1500 == lane.carried


def test_after_a_pause_a_line_is_free_at_once() -> None:
    lane = Lane(Line(rate_bits=8000, round_trip_seconds=0))

    lane.send(10, 500)

    assert 20.5 - BURST_SECONDS == pytest.approx(lane.send(20, 500)[1])


def test_a_link_carries_both_ways_counts_and_hands_on_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, Link(server.getsockname(), Line(1e9, 0.002)) as link:
        echo = Thread(target=_answer_twice, args=(server,))
        echo.start()
        with socket.create_connection(("127.0.0.1", link.port)) as near:
            near.sendall(b"x" * 100_000)
            near.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: near.recv(1 << 16), b""))
        echo.join()
        crossed = link.crossed()

    assert (b"x" * 200_000, 100_000, 200_000) == (answer, crossed.sent, crossed.received)


def _answer_twice(server: socket.socket) -> None:
    far, _ = server.accept()
    with far:
        content = b"".join(iter(lambda: far.recv(1 << 16), b""))
        far.sendall(content * 2)


def test_no_run_finds_the_layers_of_another(tmp_path: Path) -> None:
    layers = LayerShelf(tmp_path, lambda _: None).plain(2, MIB // 4)

    one, other = (write_archive(tmp_path / f"{run}.tar", layers, run) for run in ("one", "other"))

    assert set() == _diff_ids(one) & _diff_ids(other)
    assert 2 == len(_diff_ids(one))


def test_packages_are_rebuilt_with_all_times_new_and_few_contents(tmp_path: Path) -> None:
    before, after = LayerShelf(tmp_path, lambda _: None).packages(SMALL.packages_bytes)

    with tarfile.open(before) as old, tarfile.open(after) as new:
        times = {member.mtime for member in old}, {member.mtime for member in new}
        contents = [{_digest(tar, member) for member in tar if member.isreg()} for tar in (old, new)]
        names = new.getnames()
        modules = [{member.name for member in tar if member.name.endswith(".py")} for tar in (old, new)]
    assert ({OLD}, {NEW}) == times
    assert modules[0] == modules[1]
    assert any(name.endswith(".pyc") for name in names)
    assert 0 < len(contents[1] & contents[0]) < len(contents[1])


@pytest.mark.timeout(300)
def test_a_run_tells_what_crosses_the_link(tmp_path: Path) -> None:
    home = tmp_path / "bench"
    home.mkdir()
    with stand_in(tmp_path) as far_end:
        bench = WireBench(
            far_end=far_end,
            shelf=LayerShelf(tmp_path, lambda _: None),
            amounts=SMALL,
            line=Line(100e6, 0.01),
            scratch=home,
            tell=lambda _: None,
        )
        table = bench.run([UNCHANGED, CHANGED, REBUILT], ["spool", "whole", "pipe", "skopeo"], 1)

    figures = as_figures(table)
    sent = {name.removesuffix(", sent_bytes"): value for name, value in figures.items() if name.endswith("sent_bytes")}
    assert sent[f"{UNCHANGED}, spool"] < 0.02 * sent[f"{UNCHANGED}, pipe"]
    assert sent[f"{CHANGED}, spool"] < 0.25 * sent[f"{CHANGED}, pipe"]
    assert sent[f"{REBUILT}, spool"] < 0.1 * sent[f"{REBUILT}, whole"]
    assert figures[f"{REBUILT}, spool, pod_bytes"] > 20 * MIB
    assert [] == list(home.iterdir())
    lines = table_lines(table)
    assert f"{UNCHANGED}, skopeo: the stand-in forwards no port" in lines
    assert 1 + 3 * 4 + 3 == len(lines)


def _diff_ids(archive: Path) -> set[str]:
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        names: list[str] = json.load(manifest)[0]["Layers"]
        return {hashlib.sha256(_content(tar, name)).hexdigest() for name in names}


def _digest(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    return hashlib.sha256(_content(tar, member)).hexdigest()


def _content(tar: tarfile.TarFile, member: str | tarfile.TarInfo) -> bytes:
    found = tar.extractfile(member)
    assert found is not None
    return found.read()

"""On a terminal: a bar while bytes go by, no tar, and no control character that is not ours."""

from __future__ import annotations

import os
import pty
import subprocess

from support.images.posted import layer_tar
from support.programs.running_spooler import program

LAYERS = [layer_tar({"data": os.urandom(2_000_000)})]


def on_terminal(client, *arguments: str, stdout: int | None = None) -> tuple[int, str]:
    """The exit code, and what a terminal got; standard output may go elsewhere."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [program("registry-client"), *arguments],
        env={**client.variables, "TERM": "xterm", "COLUMNS": "100"},
        cwd=client.folder,
        stdin=slave,
        stdout=slave if stdout is None else stdout,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    while piece := read(master):
        shown += piece
    os.close(master)
    return process.wait(60), shown.decode()


def read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # how a terminal ends
        return b""


def test_a_pull_shows_how_far_it_is(client, poster, repository, tmp_path):
    poster.image(LAYERS, tag="v1")

    code, shown = on_terminal(client, "pull", f"{repository}:v1", "-o", "app.tar")

    assert code == 0
    assert "MiB" in shown
    assert (tmp_path / "app.tar").stat().st_size > 2_000_000


def test_a_tar_is_nothing_for_a_terminal(client, poster, repository):
    poster.image(LAYERS, tag="v1")

    code, shown = on_terminal(client, "pull", f"{repository}:v1")

    assert code == 2
    assert "use -o FILE" in shown
    assert "\0" not in shown


def test_a_file_may_go_to_a_terminal(client, repository, tmp_path):
    (tmp_path / "hello.txt").write_bytes(b"hello\n")
    client.run("push", repository, "hello.txt")

    code, shown = on_terminal(client, "pull", "--unpack", repository)

    assert code == 0
    assert "hello" in shown


def test_json_for_a_person_is_indented(client, poster, repository):
    poster.image(LAYERS, tag="v1")

    _, shown = on_terminal(client, "tags", "--json", repository)

    assert shown.splitlines() == ["[", '  "v1"', "]"]


def test_an_error_shows_no_control_character(client):
    code, shown = on_terminal(client, "inspect", "evil\x1b[2Jname")

    assert code == 2
    assert "\x1b" not in shown

"""`registry-client --remote`: the far end of a channel, driven by pipes as a container's runtime drives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from registry_spooler.cli.registry_client.remote_end import Outlet
from registry_spooler.kubernetes.wire import ALIVE, LastWord, RemoteFailure, StderrReader, encode_line, progress_line
from registry_spooler.progress import Progress
from registry_spooler.pull.output import OutputClosed
from support.programs.daemon_calls import SECONDS, FarProcess


class FarEnd(FarProcess):
    """One that works by itself: there is no daemon for its folder."""

    def __init__(self, *arguments: str, folder: Path) -> None:
        super().__init__({"REGISTRY_SPOOLER_DIRECTORY": str(folder)}, *arguments)

    def errors(self) -> list[dict[str, Any]]:
        assert self.process.stderr is not None
        return [json.loads(line) for line in self.process.stderr.read().splitlines()]

    def answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.read())


def test_standard_input_ends_where_its_length_says(tmp_path: Path) -> None:
    with FarEnd("--stdin-bytes", "5", "deposit", "--size", "5", "--", "a.txt", folder=tmp_path) as far:
        far.write(b"hello, and what is behind it")
        assert 0 == far.ended()
        assert 5 == far.answer()["size"]
    assert b"hello" == (tmp_path / "a.txt~").read_bytes()


def test_without_a_length_it_ends_where_it_is_closed(tmp_path: Path) -> None:
    with FarEnd("deposit", "--size", "5", "--", "a.txt", folder=tmp_path) as far:
        far.write(b"hello")
        far.hang_up()
        assert 0 == far.ended()
    assert b"hello" == (tmp_path / "a.txt~").read_bytes()


def test_an_end_before_the_length_is_a_caller_who_has_gone(tmp_path: Path) -> None:
    with FarEnd("--stdin-bytes", "500", "deposit", "--size", "500", "--", "a.txt", folder=tmp_path) as far:
        far.write(b"hello")
        far.hang_up()
        assert 0 != far.ended()
        assert b"" == far.process.stdout.read()


def test_a_command_without_input_ends_with_its_caller(tmp_path: Path) -> None:
    (tmp_path / "waits.tar").touch()
    with FarEnd("--stdin-bytes", "0", "wait", "--", "waits.tar", folder=tmp_path) as far:
        with pytest.raises(subprocess.TimeoutExpired):
            far.process.wait(1.0)
        far.hang_up()
        assert 0 != far.ended()


def test_errors_are_json(tmp_path: Path) -> None:
    with FarEnd("--stdin-bytes", "0", "deposit", "--probe", "--", "../a.txt", folder=tmp_path) as far:
        assert 2 == far.ended()
        error, last_word = far.errors()
    assert {"done": True, "stdout_bytes": 0, "code": 2} == last_word
    assert 2 == error["code"]
    assert ("InvalidFileName", False) == (error["kind"], error["temporary"])
    assert "'../a.txt' does not name an image" in error["error"]


@pytest.mark.parametrize("length", [("--stdin-bytes", "5"), ()])
def test_the_last_word_counts_what_was_written(tmp_path: Path, length: tuple[str, ...]) -> None:
    with FarEnd(*length, "deposit", "--size", "5", "--", "a.txt", folder=tmp_path) as far:
        far.write(b"hello")
        if not length:
            far.hang_up()
        assert 0 == far.ended()
        assert far.process.stdout is not None
        written = len(far.process.stdout.read())
        assert [{"done": True, "stdout_bytes": written, "code": 0}] == far.errors()


def test_what_comes_behind_an_error_is_taken_too(tmp_path: Path) -> None:
    size = 8 << 20
    with FarEnd("--stdin-bytes", str(size), "deposit", "--size", "1", "--", "../a.txt", folder=tmp_path) as far:
        far.write(bytes(size))  # it would break, or stop, if nobody read it
        assert 2 == far.ended()
        assert ["InvalidFileName", None] == [line.get("kind") for line in far.errors()]


def test_a_caller_who_stops_sending_is_not_waited_for(tmp_path: Path) -> None:
    with FarEnd("--stdin-bytes", "5000", "deposit", "--size", "1", "--", "../a.txt", folder=tmp_path) as far:
        far.write(b"hello")
        assert 2 == far.ended()


def test_signs_of_life(tmp_path: Path) -> None:
    code = (
        "from registry_spooler.cli.registry_client import remote_end; import time;"
        "remote_end.KEEP_ALIVE_SECONDS = 0.05;"
        "far = remote_end.RemoteSession(); far.attach(); time.sleep(0.5)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=SECONDS)
    assert {"alive": True} == json.loads(done.stderr.splitlines()[0])


def test_nobody_who_listens_is_a_caller_who_has_gone(tmp_path: Path) -> None:
    code = (
        "from registry_spooler.cli.registry_client import remote_end; import time;"
        "remote_end.KEEP_ALIVE_SECONDS = 0.05;"
        "far = remote_end.RemoteSession(); far.attach(); time.sleep(20)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.stderr.close()
        assert -15 == process.wait(SECONDS)


def test_both_ends_speak_of_an_error_and_the_last_word_alike() -> None:
    failure = RemoteFailure(sentence="it broke", kind="ChecksumMismatch", code=3, temporary=True, detail="why")
    last_word = LastWord(code=3, stdout_bytes=5)
    reader = StderrReader()
    reader.feed(b"".join(map(encode_line, (ALIVE, progress_line(Progress()), failure.to_json(), last_word.to_json()))))
    assert (failure, last_word, []) == (reader.error, reader.last_word, reader.plain)


def test_a_reader_who_takes_nothing_is_not_waited_for_for_ever() -> None:
    reader, writer = os.pipe()
    outlet = Outlet(writer)
    outlet.patience_seconds = 0.01
    outlet.put(bytes(1 << 20))  # more than a pipe takes
    with pytest.raises(OutputClosed):
        outlet.flush()
    outlet.patience_seconds = None
    outlet.stop()
    with pytest.raises(OutputClosed):
        outlet.flush()
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        outlet.put(b"")
    outlet.close()
    os.close(writer)

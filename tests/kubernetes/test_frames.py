"""Frames are plain code: the tests feed them bytes."""

from __future__ import annotations

import orjson
import pytest

from registry_spooler.kubernetes.frames import (
    FRAME_BYTES,
    Channel,
    ChannelOutput,
    Exited,
    FrameError,
    FrameReader,
    close_frame,
    stdin_frames,
)


def status(**fields: object) -> bytes:
    return b"\x03" + orjson.dumps({"kind": "Status", **fields})


def test_output_comes_with_its_channel() -> None:
    frames = FrameReader()
    assert ChannelOutput(Channel.STDOUT, b"\x00\xff") == frames.feed(b"\x01\x00\xff")
    assert ChannelOutput(Channel.STDERR, b"oh") == frames.feed(b"\x02oh")


@pytest.mark.parametrize("message", [b"\x01", b"\x02", b"\x03", b"\x00", b"\xff\x01", b"\xff"])
def test_messages_that_say_nothing(message: bytes) -> None:
    assert FrameReader().feed(message) is None


def test_success_is_exit_code_0() -> None:
    frames = FrameReader()
    assert Exited(0) == frames.feed(status(status="Success"))
    assert Exited(0) == frames.exited


def test_the_exit_code_is_among_the_causes() -> None:
    causes = [{"reason": "Other", "message": "x"}, {"reason": "ExitCode", "message": "3"}]
    message = status(status="Failure", message="exit code 3", details={"causes": causes})
    assert Exited(3, "exit code 3") == FrameReader().feed(message)


def test_a_status_in_pieces() -> None:
    whole = status(status="Success")
    frames = FrameReader()
    assert frames.feed(whole[:9]) is None
    assert Exited(0) == frames.feed(b"\x03" + whole[9:])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"status": "Failure", "message": "not in $PATH"}, "not in $PATH"),
        ({"status": "Failure", "reason": "InternalError"}, "InternalError"),
        ({"status": "Failure"}, "no reason given"),
        ({"status": "Failure", "message": "m", "details": {"causes": [{"reason": "ExitCode", "message": "?"}]}}, "m"),
        ({"status": "Failure", "message": "m", "details": []}, "m"),
        ({"status": "Failure", "message": "m", "details": {"causes": 7}}, "m"),
    ],
)
def test_a_command_that_never_ran(fields: dict[str, object], reason: str) -> None:
    assert Exited(None, reason) == FrameReader().feed(status(**fields))


def test_a_status_that_is_no_object() -> None:
    assert Exited(None, "the status is no object") == FrameReader().feed(b"\x03[]")


@pytest.mark.parametrize("message", [b"", b"\x05x", b"\x7fx"])
def test_what_is_no_frame(message: bytes) -> None:
    with pytest.raises(FrameError):
        FrameReader().feed(message)


def test_an_endless_status_is_refused() -> None:
    frames = FrameReader()
    with pytest.raises(FrameError, match="too long"):
        for _ in range(100):
            frames.feed(b"\x03" + b"{" * 100_000)


def test_standard_input_is_cut_into_frames() -> None:
    frames = list(stdin_frames(b"ab" * FRAME_BYTES))
    assert [b"\x00" + b"ab" * (FRAME_BYTES // 2)] * 2 == frames
    assert [b"\x00x"] == list(stdin_frames(memoryview(b"x")))
    assert [] == list(stdin_frames(b""))


def test_closing_is_255_and_the_channel() -> None:
    assert b"\xff\x00" == close_frame(Channel.STDIN)

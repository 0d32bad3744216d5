"""What the other side of a connection says: challenges, Location and Link, frames of the exec channel."""

from __future__ import annotations

from urllib.parse import urlsplit

import orjson

from fuzz.target import FuzzTarget
from registry_spooler.errors import RegistryProtocolError
from registry_spooler.kubernetes.frames import (
    FRAME_BYTES,
    Channel,
    ChannelOutput,
    Exited,
    FrameError,
    FrameReader,
    stdin_frames,
)
from registry_spooler.registry.address import Origin, redact
from registry_spooler.registry.auth.login import parse_challenges
from registry_spooler.registry.http.trust import TargetRules
from registry_spooler.registry.tags import next_link

SECRET = "hunter2hunter2"
OPENED = "https://registry.example/v2/a/b/blobs/uploads/1?_state=x"


def check_challenge(data: bytes) -> None:
    """Schemes and names of parameters are lower case and not empty; nothing is read that was not sent."""
    headers = data.decode("latin-1").split("\n")
    for challenge in parse_challenges(headers):
        assert challenge.scheme
        assert challenge.scheme == challenge.scheme.lower()
        assert all(name and name == name.lower() for name in challenge.parameters)
        assert all(scope and not scope.isspace() for scope in challenge.scopes)


def check_location(data: bytes) -> None:
    """Where a header leads is refused, or an http(s) URL without a login, on no private host; shown without secrets."""
    text = data.decode("utf-8", "surrogateescape")
    for registry in ("https://registry.example", "http://10.0.0.5:5000", "http://localhost:5000"):
        rules = TargetRules(Origin.of(registry))
        for resolve in (rules.redirect, rules.upload, rules.realm, rules.page):
            try:
                target = resolve(OPENED.replace("https://registry.example", registry), text)
            except RegistryProtocolError as error:
                assert len(str(error)) < len(text) * 12 + 1000
                continue
            origin = Origin.of(target)
            assert origin.scheme == "https" or not registry.startswith("https")
            assert urlsplit(target).username is None
            assert not origin.is_loopback or rules.registry.is_loopback
    assert SECRET not in redact(f"https://user:{SECRET}@registry.example/{SECRET[:4]}?token={SECRET}")
    redact(text)
    _check_link(text)


def _check_link(text: str) -> None:
    headers = text.split("\n")
    link = next_link(headers)
    assert link is None or any(f"<{link}>" in header for header in headers)


def check_frames(data: bytes) -> None:
    """What is read of the messages is what they hold, and the end is said once it is there."""
    reader, out, sent = FrameReader(), b"", b""
    for message in data.split(b"\xfe"):
        try:
            said = reader.feed(message)
        except FrameError:
            return
        if isinstance(said, ChannelOutput):
            assert said.data
            assert said.channel in {Channel.STDOUT, Channel.STDERR}
            out += said.data
        elif said is not None:
            assert isinstance(said, Exited)
            assert reader.exited == said
            assert str(said.message) == said.message
        sent += message[1:]
    assert len(out) <= len(sent)
    frames = list(stdin_frames(data))
    assert b"".join(frame[1:] for frame in frames) == data
    assert all(frame[0] == Channel.STDIN and len(frame) <= FRAME_BYTES + 1 for frame in frames)


CHALLENGES = [
    b'Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push"',
    b'Basic realm="a \\"quoted\\" one", Bearer realm=x,scope="a b c"',
    b"Negotiate dG9rZW4=, NTLM\nBasic",
]
LOCATIONS = [
    b"https://storage.example/bucket?X-Amz-Signature=1",
    b"/v2/a/b/blobs/uploads/2?_state=y",
    b"http://user:password@127.0.0.1:80/%zz#f",
    b"//[::1]:5000/a",
    b"http://0x7f.1/\nhttps://a..b/",
    b'</v2/_catalog?last=a&n=1>; rel="next", <x>; title="a;b"; rel=prev',
]


def _frame_seeds() -> list[bytes]:
    ended = {"kind": "Status", "status": "Failure", "message": "command terminated", "reason": "NonZeroExitCode"}
    causes = {"causes": [{"reason": "ExitCode", "message": "137"}]}
    status = b"\x03" + orjson.dumps(ended | {"details": causes})
    return [
        b"\x01\xfe\x02\xfe\x03\xfe\x01out\xfe\x02err\xfe" + status,
        b'\x03{"status":\xfe\x03"Success"}\xfe\xff\x01',
    ]


TARGETS = {
    "challenge": FuzzTarget(check=check_challenge, seeds=lambda: CHALLENGES, max_bytes=2048),
    "location": FuzzTarget(check=check_location, seeds=lambda: LOCATIONS, max_bytes=2048),
    "frames": FuzzTarget(check=check_frames, seeds=_frame_seeds),
}

"""What a user writes: names of files, references, docker configurations."""

from __future__ import annotations

import os

from fuzz.target import FuzzTarget
from registry_spooler.errors import InvalidFileName, InvalidReference
from registry_spooler.oci.reference import ImageName, Reference
from registry_spooler.registry.auth.credentials import DockerConfig
from registry_spooler.spool.filename import FileName, is_ignored, spool_name

HOSTS = ("registry.example", "registry.example:443")
SECRET = b"hunter2hunter2"


def check_filename(data: bytes) -> None:
    """A name is refused with a sentence, or names what `spool_name` writes for it; deletion names the same."""
    name = os.fsdecode(data.replace(b"/", b"").replace(b"\0", b""))
    if is_ignored(name):
        return
    try:
        parsed = FileName.parse(name)
    except InvalidFileName as error:
        assert str(error)
    else:
        _check_reference(name, parsed)
    for parse in (Reference.parse, ImageName.parse):
        try:
            assert parse(str(parse(name))) == parse(name)
        except InvalidReference as error:
            assert str(error)


def _check_reference(name: str, parsed: FileName) -> None:
    reference = parsed.reference
    if reference is None:
        assert name.startswith("@")
        return
    for suffix in ("", ".tar", ".tgz!", "!"):
        try:
            written = spool_name(reference, suffix)
        except InvalidReference:
            assert len(str(reference)) > 200
            continue
        assert FileName.parse(written).reference == reference
    if not name.endswith("!"):
        assert FileName.parse(f"{name}!").reference == reference


def check_dockerconfig(data: bytes) -> None:
    """A configuration is refused without quoting it, or gives logins; none for a host that it does not name."""
    try:
        config = DockerConfig.parse(data)
    except ValueError as error:
        assert SECRET.decode() not in str(error)
        return
    for login in config.candidates(HOSTS, "team/app"):
        assert not login.is_empty
        assert SECRET.decode() not in repr(login)
    config.needs_helper(HOSTS)
    assert SECRET.decode() not in repr(config)


NAMES = [
    rb"registry.k8s.io\pause:3.9.tar.gz",
    b"app%3A1.tar",
    b"read%2Eme",
    b"@bundle.tar.zst",
    b"hello.txt!",
    "näme:1~".encode(),
    b"a.b_c__d--e:1.2.3.tar",
    b"localhost:5000/library/app:1@sha256:" + b"0" * 64,
]
CONFIGS = [
    b'{"auths":{"https://registry.example/v1/":{"auth":"dXNlcjpodW50ZXIyaHVudGVyMg=="}},"credsStore":"desktop"}',
    b'{"auths":{"*.example:443/team":{"username":"u","password":"hunter2hunter2","identitytoken":"hunter2hunter2"}}}',
    b'{"registry.example":{"auth":"PHRva2VuPjpodW50ZXIyaHVudGVyMg=="}}',
    b'{"credHelpers":{"registry.example":"ecr-login"},"auths":{"[a-z]":{"registrytoken":"hunter2hunter2"}}}',
]

TARGETS = {
    "filename": FuzzTarget(check=check_filename, seeds=lambda: NAMES, max_bytes=300),
    "dockerconfig": FuzzTarget(check=check_dockerconfig, seeds=lambda: CONFIGS, is_json=True),
}

"""Which image of an index is meant."""

from __future__ import annotations

import pytest

from registry_spooler.oci.digest import Digest
from registry_spooler.oci.manifest import Descriptor, Platform
from registry_spooler.pull.image_tree import Candidate, choose, parse_platform, this_machine
from registry_spooler.pull.output import InvalidPlatform, PlatformNotFound


def candidate(text: str) -> Candidate:
    os, _, rest = text.partition("/")
    architecture, _, variant = rest.partition("/")
    descriptor = Descriptor(media_type="", digest=Digest.of(text.encode()), size=1)
    return Candidate(Platform(os=os, architecture=architecture, variant=variant) if text else None, descriptor)


def chosen(wanted: str | None, *offered: str) -> str:
    found = choose("app", [candidate(text) for text in offered], parse_platform(wanted) if wanted else None)
    return str(found.platform)


@pytest.mark.parametrize(
    ("wanted", "offered", "expected"),
    [
        ("linux/arm64", ["linux/amd64", "linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/arm64/v8", ["linux/amd64", "linux/arm64"], "linux/arm64"),
        ("arm64", ["linux/amd64", "linux/arm64"], "linux/arm64"),
        ("aarch64", ["linux/amd64", "linux/arm64"], "linux/arm64"),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v6"], "linux/arm/v6"),
        ("linux/arm", ["linux/amd64", "linux/arm/v7"], "linux/arm/v7"),
        ("windows/amd64", ["linux/amd64", "windows/amd64"], "windows/amd64"),
        (None, ["linux/s390x"], "linux/s390x"),
    ],
)
def test_the_platform_that_is_meant(wanted, offered, expected):
    assert chosen(wanted, *offered) == expected


def test_without_a_wish_it_is_this_machines():
    here = str(this_machine())

    assert chosen(None, "linux/s390x", here, "windows/amd64") == here


@pytest.mark.parametrize("wanted", ["linux/riscv64", "linux/arm/v5", "windows/arm64"])
def test_a_platform_that_is_not_there_names_those_that_are(wanted):
    with pytest.raises(PlatformNotFound) as error:
        chosen(wanted, "linux/amd64", "linux/arm/v7", "linux/amd64")

    assert str(error.value) == (
        f"app is not there for {wanted}; choose with --platform from: linux/amd64, linux/arm/v7"
    )


def test_an_image_of_another_platform_is_not_taken_for_the_wanted_one():
    with pytest.raises(PlatformNotFound):
        chosen("linux/arm64", "linux/amd64")


@pytest.mark.parametrize("text", ["", "linux/", "/amd64", "a/b/c/d", "linux//v8"])
def test_what_is_no_platform(text):
    with pytest.raises(InvalidPlatform):
        parse_platform(text)

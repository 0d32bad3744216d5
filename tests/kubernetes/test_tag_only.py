"""`kubectl spool push --tag-only`: the image says its repository, and the user the tag."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from registry_spooler.cli.kubectl.load import names_in
from registry_spooler.cli.kubectl.pushing.arguments import tagged_item
from registry_spooler.errors import InvalidReference
from support.images import archives
from support.images.archive_parts import Image


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("registry.example/team/app:1", "team/app:v2"),
        ("localhost/app:1", "app:v2"),
        ("docker.io/library/app:1", "app:v2"),
        ("app:1", "app:v2"),
    ],
)
def test_the_repository_is_the_images_own(tmp_path: Path, name: str, reference: str) -> None:
    (tmp_path / "app.tar").write_bytes(archives.docker_legacy(Image(names=(name,))))
    item = tagged_item((str(tmp_path / "app.tar"), "v2"), names_in)
    assert (reference, True) == (str(item.reference), item.is_archive)
    assert reference == str(
        tagged_item((f"docker:{name.removeprefix('docker.io/library/')}", "v2"), names_in).reference
    )


def test_when_a_tag_alone_is_not_enough(tmp_path: Path) -> None:
    for file, images, sentence in (
        (
            "two.tar",
            (Image(names=("a:1",)), Image(names=("b:1",))),
            r"names several repositories \(library/a, library/b\)",
        ),
        ("none.tar", (Image(names=()),), "names no repository"),
    ):
        (tmp_path / file).write_bytes(archives.docker_legacy(*images))
        with pytest.raises(click.UsageError, match=sentence):
            tagged_item((str(tmp_path / file), "v2"), names_in)
    with pytest.raises(click.UsageError, match=r"there is no file 'app.tar'"):
        tagged_item(("app.tar", "v2"), names_in)
    with pytest.raises(InvalidReference, match="'a/b:c' is not a tag"):
        tagged_item(("app:1", "a/b:c"), names_in)
    for arguments in (("app:1",), ("-", "v2")):
        with pytest.raises(click.UsageError, match="--tag-only wants a FILE or an IMAGE, and the TAG"):
            tagged_item(arguments, names_in)

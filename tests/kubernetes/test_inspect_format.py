"""`kubectl spool inspect --format`: one field by its path."""

from __future__ import annotations

import click
import pytest

from registry_spooler.cli.kubectl.images import _field

DOCUMENT = {"digest": "sha256:1", "platforms": [{"platform": "linux/amd64", "layers": []}]}


@pytest.mark.parametrize(
    ("path", "found"),
    [("digest", "sha256:1"), ("platforms.0.platform", "linux/amd64"), ("platforms.0.layers", [])],
)
def test_a_field_is_found_by_its_path(path: str, found: object) -> None:
    assert found == _field(DOCUMENT, path)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("size", "no field 'size' on the path 'size'; there is: digest, platforms"),
        ("platforms.1", "no field '1' on the path 'platforms.1'; there is: 0"),
        ("digest.x", "no field 'x' on the path 'digest.x'"),
    ],
)
def test_a_field_that_is_not_there(path: str, sentence: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        _field(DOCUMENT, path)
    assert sentence == caught.value.message

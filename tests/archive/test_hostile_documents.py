"""Manifests and indexes that are made to hurt are read once each, and refused where there is too much of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from registry_spooler.archive.contents import Contents
from registry_spooler.archive.formats.layout import find_images
from registry_spooler.archive.tar import TarReader
from registry_spooler.errors import ArchiveError
from registry_spooler.oci import digest as digests
from registry_spooler.oci import manifest as manifests
from registry_spooler.oci.manifest import Descriptor, Manifest, load_json
from support.images import hostile
from support.images.archive_parts import dumps, make_tar
from support.images.archive_reading import opened, tape_of

Counted = Counter[str]


def contents_of(archive: bytes) -> Contents:
    """The contents of a plain tar in memory."""
    reader = TarReader(tape_of(archive))
    contents = Contents(fetch=lambda member: archive[member.offset : member.offset + member.size])
    while (member := reader.next()) is not None:
        contents.add(member)
    contents.complete = True
    return contents


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """How many bytes have been parsed as JSON, and how many hashed."""
    counted: Counted = Counter()

    def count(module: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(module, name)

        def counting(*arguments: Any) -> Any:
            counted[name] += max(len(argument) for argument in arguments if not isinstance(argument, str))
            return real(*arguments)

        monkeypatch.setattr(module, name, counting)

    count(manifests.orjson, "loads")
    count(digests.hashlib, "new")
    return counted


@pytest.mark.parametrize(
    "make",
    [
        hostile.one_config_for_many_images,
        hostile.many_names_for_one_image,
        lambda: hostile.one_manifest_listed_often(count=9_000),
        hostile.indexes_within_indexes,
    ],
)
def test_each_document_is_read_once(work, make):
    archive = make()
    (image,) = find_images(contents_of(archive))
    assert image
    assert work["loads"] <= 3 * len(archive)
    assert work["new"] <= 3 * len(archive)


def test_many_names_are_all_kept():
    (image,) = find_images(contents_of(hostile.many_names_for_one_image()))
    assert len(image.called.names) == 9_000


def test_a_manifest_is_parsed_once_for_all_who_ask(work):
    contents = contents_of(hostile.one_manifest_listed_often(times=3, count=5_000))
    (image,) = find_images(contents)
    index = contents.manifest(image.root)
    assert index is not None
    work.clear()
    first = [contents.manifest(child) for child in index.manifests]
    assert first[0] is first[1] is first[2] is not None
    assert work["loads"] <= first[0].size


def test_what_is_kept_of_manifests_is_bounded():
    large = [hostile.manifest(9_000, seed=seed) for seed in range(8)]
    contents = contents_of(make_tar([(f"blobs/sha256/{hostile.hexdigest(one)}", one) for one in large]))
    for one in large:
        found = contents.manifest(Manifest.parse(one).descriptor())
        assert found is not None
        assert len(found.layers) == 9_000
    assert contents._parsed_count <= 50_000


def test_a_manifest_that_cannot_be_read_is_tried_once(work):
    bad = hostile.manifest(9_000).replace(b'"size":1', b'"size":"', 1)
    contents = contents_of(make_tar([(f"blobs/sha256/{hostile.hexdigest(bad)}", bad)]))
    descriptor = Descriptor(media_type="", digest=digests.Digest.of(bad), size=len(bad))
    for _ in range(3):
        with pytest.raises(ArchiveError, match="valid JSON"):
            contents.manifest(descriptor)
    assert work["loads"] == len(bad)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: hostile.with_index(hostile.many_values(2_000_000)),
            "index.json: its JSON has more than 250,000 values",
        ),
        (
            lambda: hostile.with_index(hostile.many_values(2_000_000, b"[]"), "manifest.json"),
            "manifest.json: its JSON has more than 250,000 values",
        ),
        (
            lambda: hostile.with_index(dumps({"schemaVersion": 2, "manifests": hostile.layers(12_000)})),
            "index.json: it lists 12,000 descriptors; more than 10,000 are refused",
        ),
        (
            lambda: hostile.one_config_for_many_images(11_000, 500),
            "manifest.json: it lists 11,000 images; more than 10,000 are refused",
        ),
        (
            lambda: make_tar([("manifest.json", dumps([{"Config": "c", "Layers": ["x"] * 60_000}]))]),
            "manifest.json: its images list more than 50,000 Layers in all",
        ),
        (
            lambda: make_tar([("manifest.json", dumps([{"Config": "c", "RepoTags": ["a:1"] * 60_000}]))]),
            "manifest.json: its images list more than 50,000 RepoTags in all",
        ),
    ],
)
def test_too_much_is_refused_in_a_sentence(make, sentence):
    with pytest.raises(ArchiveError) as caught:
        find_images(contents_of(make()))
    assert str(caught.value) == sentence


async def test_large_numbers_and_deep_nesting(tmp_path):
    for document in (b"[" * 4_000_000, b"9" * 4_000_000, b'{"a":' * 200_000 + b"1" + b"}" * 200_000):
        async with opened(hostile.with_index(document), tmp_path) as archive:
            with pytest.raises(ArchiveError, match=r"index\.json: it"):
                await archive.images()


def test_text_is_no_values():
    long = dumps({"history": [{"created_by": "x" * 3_000_000}]})
    assert load_json(long, where="config")["history"]

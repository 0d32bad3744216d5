"""Whatever JSON an archive's documents hold, the answer is its images or an ArchiveError."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from registry_spooler.archive.contents import Contents
from registry_spooler.archive.formats.layout import find_images
from registry_spooler.archive.tar_header import Kind, Member
from registry_spooler.errors import ArchiveError
from support.images import archives
from support.images.archive_parts import Image, dumps, read_tar

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
GOOD = {name: read_tar(archives.EXAMPLES[name]) for name in ("docker-25", "apko", "buildx", "podman-docker")}


def images_of(files: dict[str, bytes]) -> list[str]:
    """What is said of them: the images' names, or why there are none. Any other exception is the test's to see."""
    contents = Contents(fetch=lambda member: files[member.path])
    contents.complete = True
    for path, content in files.items():
        contents.add(Member(path, Kind.FILE, len(content), 0))
    try:
        return [str(image) for image in find_images(contents)]
    except ArchiveError as error:
        return [str(error)] if str(error).isprintable() else [""]


@given(values, values, values)
@example(manifest=[{"Config": "oci-layout"}], index={}, marker={"rootfs": {"diff_ids": None}})
def test_any_documents(manifest, index, marker):
    assert all(images_of({"manifest.json": dumps(manifest), "index.json": dumps(index), "oci-layout": dumps(marker)}))


@given(st.sampled_from(sorted(GOOD)), st.data())
def test_good_documents_with_one_value_changed(name, data):
    files = dict(GOOD[name])
    path = data.draw(st.sampled_from(sorted(path for path, content in files.items() if content[:1] in (b"{", b"["))))
    document = json.loads(files[path])
    change(document, data)
    assert all(images_of(files | {path: dumps(document)}))


def change(document: object, data: st.DataObject) -> None:
    """Put another value somewhere into a document."""
    while isinstance(document, dict | list) and document:
        key = data.draw(st.sampled_from(sorted(document) if isinstance(document, dict) else range(len(document))))
        inner = document[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            document[key] = data.draw(values)
            return
        document = inner


def test_the_examples_are_good():
    for files in GOOD.values():
        images_of(files)
    assert Image().diff_ids

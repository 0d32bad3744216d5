"""Bad input is an answer: one sentence that says what is wrong and where, and no hang."""

from __future__ import annotations

import json

import pytest

from registry_spooler.archive.limits import MEMBERS_MAX
from registry_spooler.archive.opening import open_archive
from registry_spooler.archive.source import FileSource
from registry_spooler.errors import ArchiveError, ArchiveTruncated, SourceUnreadable
from registry_spooler.text import shortened
from support.images import archives
from support.images.archive_parts import (
    COMPRESSORS,
    Folder,
    Hardlink,
    Image,
    Symlink,
    dumps,
    gz,
    hexdigest,
    layer,
    make_tar,
    read_tar,
    without_end_marker,
)
from support.images.archive_reading import opened, read_archive

CONFIG = Image().config
ITEM = {"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["a.tar", "b.tar"]}
GOOD = {"a.tar": Image().layers[0], "b.tar": Image().layers[1], "config.json": CONFIG, "manifest.json": dumps([ITEM])}
AS_FILE = "to push the file as it is, give it a name without an archive suffix"


@pytest.fixture
def refusal(tmp_path):
    """The error that an archive is refused with, once plain and once compressed: the same sentence."""

    async def read(content: bytes) -> ArchiveError:
        path = tmp_path / "archive"
        errors = []
        for suffix in (".tar", ".tgz"):
            path.write_bytes(COMPRESSORS[suffix](content))
            with pytest.raises(ArchiveError) as caught:
                await read_archive(path)
            errors.append(caught.value)
        assert str(errors[0]) == str(errors[1])
        assert type(errors[0]) is type(errors[1])
        return errors[0]

    return read


@pytest.fixture
def first_look(tmp_path):
    """The error that a file of these bytes is refused with."""

    async def read(content: bytes) -> ArchiveError:
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(ArchiveError) as caught:
            await read_archive(tmp_path / "file")
        return caught.value

    return read


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"PK\x03\x04zip", f"it is no tar archive but a zip archive; {AS_FILE}"),
        (b"\x04\x22\x4d\x18lz4",
         f"it is no tar archive but lz4 data, which is not read here (gzip, zstd, xz and bzip2 are); {AS_FILE}"),
        (b"\x7fELF" + bytes(600), f"it is no tar archive but a program; {AS_FILE}"),
        (b"<!DOCTYPE html>" + b" " * 600, "it is no tar archive but a web page (did a download answer with an error?)"),
        (b'{"errors":[]}' + b" " * 600, f"it is no tar archive but looks like JSON; {AS_FILE}"),
        (b"#!/bin/sh\n" * 60, f"it is no tar archive but a script; {AS_FILE}"),
        (b"once upon a time" * 60, f"it is no tar archive; {AS_FILE}"),
        (gz(b"once upon a time" * 60), f"the gzip data in it holds something else than a tar archive; {AS_FILE}"),
        (gz(gz(archives.crane())),
         "the gzip data in it holds compressed data again (gzip); compress the tar archive once"),
    ],
)  # fmt: skip
async def test_what_is_no_tar_is_called_by_its_name(content, sentence, first_look):
    error = await first_look(content)
    assert (str(error), error.incomplete) == (sentence, False)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "it is empty"),
        (b"hello", "it ends after 5 bytes, too few for a tar archive"),
        (gz(b""), "the gzip data in it is empty"),
        (gz(b"hello"), "the gzip data in it ends after 5 bytes, too few for a tar archive"),
        (bytes(100_000), "it is a tar archive without a file in it"),
        (make_tar([("folder", Folder)]), "it is a tar archive without a file in it"),
        (archives.crane()[:700], "the archive ends "),
    ],
)
async def test_what_looks_unfinished_is_incomplete(content, sentence, first_look):
    error = await first_look(content)
    assert str(error).startswith(sentence)
    assert error.incomplete


@pytest.mark.parametrize("suffix", [".tar", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"])
@pytest.mark.parametrize("name", ["podman-docker", "oci-archive", "docker-25"])
async def test_an_archive_cut_anywhere_is_incomplete(name, suffix, first_look):
    whole = archives.EXAMPLES[name]
    whole = COMPRESSORS[suffix](whole[: whole.rindex(b"manifest.json" if "docker" in name else b"index.json") + 512])
    for parts in range(1, 24):
        error = await first_look(whole[: len(whole) * parts // 24])
        assert error.incomplete, str(error)


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ([("repositories", b"{}"), ("ab/json", b"{}"), ("ab/layer.tar", layer())],
         "it was written by a docker before 1.10 and has no manifest.json; load it into docker and save it again"),
        ([("mychart/Chart.yaml", b"name: mychart"), ("mychart/values.yaml", b"")],
         f"it is a Helm chart, not an image archive; push it with `helm push`, or {AS_FILE}"),
        ([("bin/sh", b""), ("etc/passwd", b""), ("usr/bin/env", b""), ("var/x", b"")],
         "it is the tree of a root file system, not an image archive; make an image of it first (`docker import`, "
         "`podman import`)"),
        ([("layer.tar", layer())],
         "it is a single layer, not an image archive: manifest.json or index.json is missing"),
        ([("app/.wh.gone", b""), ("app/new", b"")],
         "it is a single layer, not an image archive: manifest.json or index.json is missing"),
        ([("a/oci-layout", b"{}"), ("b/index.json", b"{}")],
         "it has no index of images at its top, nor in the one folder that all its files share; pack the image's "
         "folder alone"),
        ([("one", b"1"), ("two/three", b"2")],
         "it is a tar archive, but not of an image: manifest.json or index.json is missing (it holds one, two); "
         f"{AS_FILE}"),
    ],
)  # fmt: skip
async def test_other_archives_are_called_by_their_name(members, sentence, refusal):
    error = await refusal(make_tar(members))
    assert (str(error), error.incomplete) == (sentence, False)
    assert isinstance(await refusal(without_end_marker(make_tar(members))), ArchiveTruncated)


def changed(**members: object) -> bytes:
    """The good archive with other members; None leaves one out."""
    files = GOOD | {
        name.replace("_json", ".json").replace("_tar", ".tar"): content for name, content in members.items()
    }
    return make_tar([(path, content) for path, content in files.items() if content is not None])


def item(**fields: object) -> bytes:
    return changed(manifest_json=dumps([ITEM | fields]))


@pytest.mark.parametrize(
    ("archive", "sentence"),
    [
        (changed(manifest_json=b"{not JSON"), "manifest.json: it is not valid JSON"),
        (changed(manifest_json=b"[" * 100_000), "manifest.json: it is not valid JSON"),
        (changed(manifest_json=b"[]"), "manifest.json: it names no image"),
        (changed(manifest_json=b'{"a":1}'), "manifest.json: it is not a list of images"),
        (changed(manifest_json=b'[["a"]]'), "manifest.json: it is not a list of images"),
        (changed(manifest_json=archives.oci_manifest(Image())),
         "manifest.json: it is an image's own manifest: this is a folder of `skopeo copy … dir:`; copy it to "
         "oci-archive: instead"),
        (item(Config=None), "manifest.json: an image has no Config"),
        (item(Config="gone.json"), "the image's config 'gone.json' is missing"),
        (item(Config=""), "the image's config '' is missing"),
        (item(Config="x" * 1000), f"the image's config '{'x' * 200}'… is missing"),
        (item(Config="../config.json"), "../config.json: it leads out of the archive"),
        (item(Layers="a.tar"), "manifest.json: Layers is not a list of strings"),
        (item(RepoTags=[1]), "manifest.json: RepoTags is not a list of strings"),
        (item(LayerSources=[1]), "manifest.json: LayerSources is not an object"),
        (item(LayerSources={"a": {"size": -1}}), "manifest.json, LayerSources: a descriptor has no valid size: -1"),
        (item(Layers=["a.tar"]), "manifest.json, config.json: it names 1 layer for an image whose config has 2"),
        (item(Layers=["a.tar", "../../etc/passwd"]), "../../etc/passwd: it leads out of the archive"),
        (changed(config_json=b"{}"), "manifest.json, config.json: it names 2 layers for an image whose config has 0"),
        (changed(config_json=b"[]"), "config.json: it is not a JSON object"),
        (changed(config_json=b'{"rootfs":{"diff_ids":"x"}}'), "config.json: its rootfs.diff_ids is not a list"),
        (changed(config_json=b'{"rootfs":{"diff_ids":["x","y"]}}'),
         "config.json: one of its rootfs.diff_ids is not a digest"),
        (changed(config_json=b"{" + b" " * (5 << 20)),
         "config.json: it claims 5,242,881 bytes, too many for such a document"),
        (changed(a_tar=Symlink("b.tar"), b_tar=Symlink("a.tar")), "a.tar: its links lead in a circle"),
        (changed(a_tar=Hardlink("b.tar"), b_tar=Hardlink("a.tar")), "a.tar: its links lead in a circle"),
        (changed(a_tar=Symlink("../outside")), "a.tar: it leads out of the archive"),
        (changed(a_tar=Symlink("/etc/passwd")), "a.tar: it is a link that leads out of the archive"),
        (make_tar([(f"sha256:{hexdigest(b'other')}", CONFIG),
                   ("manifest.json", dumps([ITEM | {"Config": f"sha256:{hexdigest(b'other')}"}]))]),
         f"sha256:{hexdigest(b'other')[:12]}…: the config does not have the digest that it is named by"),
    ],
)  # fmt: skip
async def test_docker_archives_that_contradict_themselves(archive, sentence, refusal):
    error = await refusal(archive)
    assert (str(error), error.incomplete) == (sentence, False)


async def test_a_layer_stored_as_a_sparse_file(refusal):
    records = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.name=a.tar\n28 GNU.sparse.realsize=1024\n"
    sparse = make_tar([("x", records)])[:1024].replace(b"x", b"p", 1)
    block = bytearray(sparse[:512])
    block[156:157] = b"x"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    archive = bytes(block) + sparse[512:] + make_tar(GOOD.items())
    error = await refusal(archive)
    assert str(error) == ("a.tar: the layer is stored as a sparse file; make the archive again without tar's --sparse")


def oci(**index: object) -> bytes:
    """A good OCI layout with another index.json."""
    files = read_tar(archives.oci_archive())
    files["index.json"] = dumps(json.loads(files["index.json"]) | index)
    return make_tar(files.items())


def entry(**fields: object) -> bytes:
    return oci(manifests=[archives.descriptor(archives.MANIFEST, archives.oci_manifest(Image())) | fields])


@pytest.mark.parametrize(
    ("archive", "sentence"),
    [
        (oci(manifests=[]), "index.json: it names no image"),
        (oci(manifests="none"), "index.json: a list of descriptors is not a list"),
        (oci(manifests=[1]), "index.json: a descriptor is not a JSON object"),
        (oci(layers=[]), "index.json: it is both an index and an image manifest"),
        (entry(digest="sha256:short"), "index.json: a descriptor has no valid digest: 'sha256:short'"),
        (entry(size="1"), "index.json: a descriptor has no valid size: '1'"),
        (entry(size="\n\x1b"), r"index.json: a descriptor has no valid size: '\n\x1b'"),
        (entry(mediaType="text/plain"), "index.json: it names something of type 'text/plain', which is no image"),
        (make_tar([("oci-layout", b'{"imageLayoutVersion":"2.0"}'), ("index.json", b"{}")]),
         "oci-layout: it is of version '2.0'; version 1 can be read"),
        (make_tar([archives.LAYOUT]), "index.json is missing"),
    ],
)  # fmt: skip
async def test_oci_layouts_that_are_wrong(archive, sentence, refusal):
    assert str(await refusal(archive)) == sentence


async def test_a_manifest_that_does_not_have_its_digest(tmp_path):
    files = read_tar(archives.oci_archive())
    path = archives.blob(archives.oci_manifest(Image()))[0]
    files[path] = files[path].replace(b"schemaVersion", b"SchemaVersion")
    async with opened(make_tar(files.items()), tmp_path) as archive:
        (image,) = await archive.images()
        with pytest.raises(ArchiveError, match=f"^{shortened(path)}: its content does not have the digest"):
            await archive.content(image.root.digest)


async def test_two_archives_in_one(refusal):
    both = archives.podman_docker() + archives.crane(Image(names=("other:1",)))
    assert str(await refusal(both)) == (
        "manifest.json: two archives are concatenated, and both have it; push each as a file of its own"
    )


async def test_a_file_appended_by_tar_is_no_second_archive(tmp_path):
    files = [*GOOD.items(), ("manifest.json", dumps([ITEM | {"RepoTags": ["app:2"]}]))]
    (tmp_path / "archive").write_bytes(make_tar(files))
    (image,) = (await read_archive(tmp_path / "archive")).images
    assert str(image) == "app:2"


async def test_millions_of_members(tmp_path):
    member = make_tar([("same", b"")])[:512]
    (tmp_path / "archive").write_bytes(member * (MEMBERS_MAX + 1))
    with pytest.raises(ArchiveError, match="more than 100,000 members"):
        await read_archive(tmp_path / "archive")


async def test_more_documents_than_are_kept(refusal):
    fill = b"{" + b" " * ((4 << 20) - 3) + b"}"
    items = [ITEM | {"Config": f"{at}.json"} for at in range(5)]
    documents = [(f"{at}.json", fill) for at in range(5)]
    error = await refusal(make_tar([("manifest.json", dumps(items)), *documents]))
    assert "layers" in str(error)  # the first of them is refused for what it is, long before there are too many


async def test_missing_things_are_incomplete_only_without_an_end_marker(tmp_path):
    whole = archives.oci_archive()
    async with opened(whole, tmp_path) as archive:
        assert str(archive.missing("the layer x")) == "the layer x is missing"
    async with opened(without_end_marker(whole), tmp_path) as archive:
        error = archive.missing("the layer x")
        assert error.incomplete
        assert str(error) == "the layer x is missing; and it has no end marker, as if it were cut off"


async def test_a_file_that_cannot_be_read_is_tried_again(tmp_path):
    (tmp_path / "archive").write_bytes(archives.crane())
    async with FileSource.open(tmp_path / "archive") as source:
        source.fd = -1
        with pytest.raises(SourceUnreadable) as caught:
            async with open_archive(source):
                pass
    assert caught.value.temporary
    assert str(caught.value) == "'archive' cannot be read: Bad file descriptor"

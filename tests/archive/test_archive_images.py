"""Which images an archive holds, in every format, plain and compressed."""

from __future__ import annotations

import json

import pytest

from registry_spooler.archive.compression import Compression, sniff
from registry_spooler.archive.formats.image import DockerImage, OciImage, layer_compression, select_image
from registry_spooler.archive.opening import IndexedArchive
from registry_spooler.archive.streaming import StreamedArchive
from registry_spooler.archive.tar_header import Kind, Member
from registry_spooler.errors import ArchiveError
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.reference import Reference
from support.images import archives
from support.images.archive_parts import (
    COMPRESSORS,
    Folder,
    Hardlink,
    Image,
    Symlink,
    digest,
    dumps,
    gz,
    hexdigest,
    layer,
    make_tar,
    read_tar,
    without_end_marker,
    zst,
)
from support.images.archive_reading import opened, read_archive

ARM = Image(platform="linux/arm64")
OTHER = Image(layers=(layer("other"),), names=("docker.io/library/other:2",))


@pytest.fixture
def images_of(tmp_path):
    async def read(content: bytes):
        path = tmp_path / "archive"
        path.write_bytes(content)
        return (await read_archive(path)).images

    return read


@pytest.mark.parametrize("name", archives.EXAMPLES)
@pytest.mark.parametrize("suffix", [".tar", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"])
async def test_every_format_is_read(name, suffix, tmp_path):
    content = archives.EXAMPLES[name]
    async with opened(COMPRESSORS[suffix](content), tmp_path) as archive:
        assert isinstance(archive, IndexedArchive if suffix == ".tar" else StreamedArchive)
        if isinstance(archive, StreamedArchive):
            async for _ in archive.members():
                if archive.is_document:
                    await archive.keep()
        (image,) = await archive.images()
        if isinstance(image, OciImage):
            assert digest(await archive.content(image.root.digest)) == image.root.digest
        else:
            assert all(layer.member is not None for layer in image.layers)


@pytest.mark.parametrize(
    "make", [archives.docker_legacy, archives.podman_docker, archives.crane, archives.docker_25, archives.oci_archive]
)
async def test_several_images_keep_their_names(make, images_of):
    images = await images_of(make(Image(), OTHER))
    assert [str(image) for image in images] == ["registry.example/app:1", "docker.io/library/other:2"]


@pytest.mark.parametrize("make", [archives.docker_legacy, archives.crane, archives.docker_25, archives.oci_archive])
async def test_an_image_with_two_names_is_one_image(make, images_of):
    (image,) = await images_of(make(Image(names=("registry.example/app:1", "registry.example/app:2"))))
    assert [name.tag for name in image.called.names] == ["1", "2"]


@pytest.mark.parametrize("make", [archives.docker_legacy, archives.crane, archives.oci_archive, archives.docker_25])
async def test_an_image_may_have_no_name(make, images_of):
    (image,) = await images_of(make(Image(names=())))
    assert image.called.names == ()


async def test_the_name_may_be_a_tag_alone(images_of):
    (image,) = await images_of(archives.oci_archive(Image(names=("v1",))))
    assert (image.called.names, image.called.tags) == ((), ("v1",))


async def test_a_docker_archive_gives_layers_in_order_with_their_diff_ids(images_of):
    same = layer("same")
    packed = Image(layers=(same, layer("between"), same))
    (image,) = await images_of(archives.docker_legacy(packed))
    assert isinstance(image, DockerImage)
    assert image.config.content == packed.config
    assert [str(layer.diff_id) for layer in image.layers] == packed.diff_ids
    assert image.layers[0].member == image.layers[2].member
    assert str(image.config.platform) == "linux/amd64"
    assert image.config.descriptor.digest == digest(packed.config)


async def test_layers_that_are_hard_links(images_of):
    packed = Image(layers=(layer("first"), layer("first")))
    item = {"Config": "config.json", "RepoTags": None, "Layers": ["b.tar", "a.tar"]}
    archive = make_tar(
        [
            ("b.tar", Hardlink("./a.tar")),
            ("a.tar", packed.layers[0]),
            ("a.tar", Hardlink("a.tar")),  # tar was told to pack it twice
            ("config.json", packed.config),
            ("manifest.json", dumps([item])),
        ]
    )
    (image,) = await images_of(archive)
    assert [layer.member.path for layer in image.layers] == ["a.tar", "a.tar"]


@pytest.mark.parametrize("make", [archives.docker_legacy, archives.oci_archive, archives.docker_25, archives.crane])
@pytest.mark.parametrize("prefix", ["./", "mydir/", "./a/b/", "/"])
async def test_archives_packed_again_by_hand(make, prefix, images_of):
    files = read_tar(make()).items()
    entries = [(f"{prefix}{path}", content) for path, content in files]
    noise = [(f"{prefix}README.md", b"hello"), (f"{prefix}._manifest.json", b"a Mac's"), ("._mydir", b"a Mac's")]
    (image,) = await images_of(make_tar([(prefix, Folder), *entries, *noise]))
    assert str(image) == "registry.example/app:1"


async def test_the_last_of_two_members_with_one_name_counts(images_of):
    packed = read_tar(archives.podman_docker())
    stale = dumps([{"Config": "gone.json", "RepoTags": ["stale:1"], "Layers": []}])
    (image,) = await images_of(make_tar([("manifest.json", stale), *packed.items()]))
    assert str(image) == "registry.example/app:1"


async def test_an_archive_without_an_end_marker_that_holds_everything(images_of):
    (image,) = await images_of(without_end_marker(archives.oci_archive()))
    assert str(image) == "registry.example/app:1"


async def test_a_nested_index_is_one_image_whatever_is_missing_of_it(images_of):
    (image,) = await images_of(archives.containerd([Image(), ARM], missing=[ARM], attest=True))
    assert image.root.is_index
    assert str(image) == "registry.example/app:1"


async def test_a_flat_index_is_one_image_by_the_digest_of_index_json(tmp_path):
    content = archives.flat_index(Image(), ARM)
    index = read_tar(content)["index.json"]
    async with opened(content, tmp_path) as archive:
        (image,) = await archive.images()
        assert (image.root.digest, image.root.size) == (digest(index), len(index))
        assert await archive.content(image.root.digest) == index


async def test_referrers_and_attestations_are_no_images(images_of):
    packed = Image()
    statement, config = archives.attestation(packed)
    signature = archives.oci_manifest(OTHER)
    index = archives.oci_index(
        [
            archives.descriptor(archives.MANIFEST, archives.oci_manifest(packed)),
            archives.attestation_descriptor(packed, statement),
            archives.descriptor(archives.MANIFEST, signature, annotations={"io.containerd.manifest.subject": "x"}),
        ]
    )
    entries = [*archives.oci_blobs(packed), archives.blob(statement), archives.blob(config), archives.blob(signature)]
    (image,) = await images_of(archives.layout(entries, index))
    assert image.root.digest == digest(archives.oci_manifest(packed))


async def test_apko_gives_its_index_and_finds_its_manifests_and_layers(tmp_path):
    async with opened(archives.apko(Image(), ARM), tmp_path) as archive:
        (image,) = await archive.images()
        assert image.root.is_index
        for packed in (Image(), ARM):
            assert await archive.content(digest(archives.oci_manifest(packed))) == archives.oci_manifest(packed)
            assert all(archive.find(digest(gz(content))) for content in packed.layers)


class TestWhatDocker25GotWrong:
    """What the layout and manifest.json do not agree on is taken from manifest.json."""

    async def test_a_right_one_is_both(self, images_of):
        (image,) = await images_of(archives.docker_25())
        assert isinstance(image, DockerImage)
        assert image.as_oci.root.digest == digest(archives.oci_manifest(Image(), compress=bytes))

    async def test_one_with_compressed_layers_is_an_oci_image(self, images_of):
        (image,) = await images_of(archives.docker_25(compress=gz))
        assert isinstance(image, OciImage)

    @pytest.mark.parametrize("listed", [b'"manifests":null', b'"manifests":[]', None])
    async def test_an_index_that_names_nothing_counts_as_none(self, images_of, listed):
        packed = Image(names=())
        files = read_tar(archives.docker_25(packed))
        media_type = b'"mediaType":"application/vnd.oci.image.index.v1+json"'
        files["index.json"] = b'{"schemaVersion":2,%s,%s}' % (media_type, listed) if listed else b""
        (image,) = await images_of(make_tar(files.items()))
        assert isinstance(image, DockerImage)
        assert (image.config.content, image.called.names) == (packed.config, ())

    async def test_layers_in_another_order(self, images_of):
        packed = Image()
        (image,) = await images_of(archives.docker_25(packed, index_layers=packed.layers[::-1]))
        assert isinstance(image, DockerImage)
        assert [str(layer.diff_id) for layer in image.layers] == packed.diff_ids
        assert str(image) == "registry.example/app:1"

    async def test_layers_left_out(self, images_of):
        (image,) = await images_of(archives.docker_25(Image(), index_layers=Image().layers[:1]))
        assert len(image.layers) == 2

    async def test_images_left_out_of_the_index(self, images_of):
        unnamed = Image(layers=(layer("unnamed"),), names=())
        files = read_tar(archives.docker_25(Image(), unnamed))
        files["index.json"] = read_tar(archives.docker_25(Image()))["index.json"]
        named, other = await images_of(make_tar(files.items()))
        assert named.as_oci is not None
        assert (other.config.content, other.called.names) == (unnamed.config, ())

    async def test_a_manifest_json_that_speaks_of_what_is_missing(self, images_of):
        archive = archives.thin(archives.docker_25(), Image().config)
        (image,) = await images_of(archive)
        assert isinstance(image, OciImage)


class TestSelection:
    """The image of several that a file name means."""

    @pytest.fixture
    async def images(self, images_of):
        return await images_of(archives.podman_docker(Image(), OTHER, Image(layers=(), names=())))

    @pytest.mark.parametrize(
        ("reference", "found"),
        [
            ("app:1", "registry.example/app:1"),
            ("registry.example/app:1", "registry.example/app:1"),
            ("other:2", "docker.io/library/other:2"),
            ("library/other:2", "docker.io/library/other:2"),
        ],
    )
    async def test_by_its_name(self, images, reference, found):
        assert str(select_image(images, Reference.parse(reference))) == found

    async def test_none_matches(self, images):
        with pytest.raises(ArchiveError) as caught:
            select_image(images, Reference.parse("app:2"))
        image_id = hexdigest(Image(layers=()).config)[:12]
        assert str(caught.value) == (
            "the archive holds 3 images, and none of them is called app:2; it holds: registry.example/app:1, "
            f"docker.io/library/other:2, one without a name (image ID sha256:{image_id}…)"
        )

    async def test_a_single_one_needs_no_name(self, images):
        assert select_image(images[:1], Reference.parse("whatever:1")) is images[0]

    async def test_by_a_tag_alone(self, images_of):
        images = await images_of(archives.oci_archive(Image(names=("v1",)), Image(layers=(), names=("v2",))))
        assert select_image(images, Reference.parse("any/repository:v2")) is images[1]


class TestLayerCompression:
    """How a docker archive's layer goes out."""

    @pytest.mark.parametrize(
        ("path", "content", "setting", "expected"),
        [
            ("a/layer.tar", layer(), Compression.GZIP, Compression.GZIP),
            ("a/layer.tar", layer(), Compression.ZSTD, Compression.ZSTD),
            ("a/layer.tar", layer(), Compression.NONE, Compression.NONE),
            ("a/layer.tar", gz(layer()), Compression.ZSTD, Compression.NONE),
            ("a/layer.tar", zst(layer()), Compression.GZIP, Compression.NONE),
            (f"blobs/sha256/{hexdigest(layer())}", layer(), Compression.GZIP, Compression.GZIP),
            (f"blobs/sha256/{hexdigest(layer())}", layer(), Compression.NONE, Compression.NONE),
            (f"blobs/sha256/{hexdigest(gz(layer()))}", gz(layer()), Compression.ZSTD, Compression.NONE),
        ],
    )
    def test_plain_layers_are_compressed_all_else_is_left_alone(self, path, content, setting, expected):
        member = Member(path, Kind.FILE, len(content), 0)
        assert layer_compression(member, sniff(content), setting) is expected

    def test_xz_is_for_no_layer(self):
        with pytest.raises(ArchiveError, match=r"layer\.tar: the layer is compressed with xz"):
            layer_compression(Member("layer.tar", Kind.FILE, 9, 0), Compression.XZ, Compression.GZIP)
        with pytest.raises(ArchiveError, match="compressed with xz"):
            _ = Compression.XZ.layer_media_type


async def test_a_layer_that_is_not_there_may_be_known_by_its_digest(images_of):
    packed = Image()
    crane = archives.thin(archives.crane(packed), gz(packed.layers[0]))
    podman = archives.thin(archives.podman_docker(packed), packed.layers[0])
    for archive, expected in ((crane, digest(gz(packed.layers[0]))), (podman, None)):
        (image,) = await images_of(archive)
        assert image.layers[0].member is None
        assert image.layers[0].expected_digest == expected


async def test_a_windows_base_layer_is_told_by_its_source(images_of):
    packed = Image()
    foreign = {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": f"sha256:{hexdigest(b'far away')}",
        "size": 8,
        "urls": ["https://example.com/layer"],
    }
    files = read_tar(archives.podman_docker(packed))
    path = f"{hexdigest(packed.layers[0])}.tar"
    del files[path]
    item = {"Config": f"{hexdigest(packed.config)}.json", "Layers": [path, f"{hexdigest(packed.layers[1])}.tar"]}
    files["manifest.json"] = dumps([item | {"LayerSources": {packed.diff_ids[0]: foreign}}])
    (image,) = await images_of(make_tar(files.items()))
    assert image.layers[0].source.is_foreign
    assert image.layers[0].source.digest == Digest.of(b"far away")


async def test_a_symbolic_link_may_climb_but_not_out(images_of):
    packed = Image(layers=(layer(),))
    item = {"Config": "config.json", "Layers": ["deep/er/layer.tar"]}
    rest = [("config.json", packed.config), ("manifest.json", dumps([item]))]
    inside = make_tar([("deep/er/layer.tar", Symlink("../../layer.tar")), ("layer.tar", packed.layers[0]), *rest])
    (image,) = await images_of(inside)
    assert image.layers[0].member.path == "layer.tar"


class TestWhatBelongsToAnother:
    """Entries of an index that are no images of their own."""

    def layout(self, *, named: bool = True) -> bytes:
        """As oras copies a signed image of two platforms: every manifest is listed, only the image has a name."""
        children = [archives.descriptor(archives.MANIFEST, archives.oci_manifest(image)) for image in (Image(), ARM)]
        index = archives.oci_index(children)
        self.image = archives.descriptor(archives.INDEX, index)
        self.signature = json.loads(archives.oci_manifest(OTHER)) | {"subject": children[1]}
        self.countersignature = self.signature | {
            "subject": archives.descriptor(archives.MANIFEST, dumps(self.signature))
        }
        signatures = [dumps(self.signature), dumps(self.countersignature)]
        tagged = self.image | {"annotations": {"org.opencontainers.image.ref.name": "v1"}} if named else self.image
        listed = [*children, tagged, *(archives.descriptor(archives.MANIFEST, content) for content in signatures)]
        entries = [*archives.oci_blobs(Image()), *archives.oci_blobs(ARM), *archives.oci_blobs(OTHER)]
        blobs = [archives.blob(content) for content in (index, *signatures)]
        return archives.layout([*entries, *blobs], archives.oci_index(listed))

    @pytest.mark.parametrize("named", [True, False])
    async def test_the_image_is_the_only_one_and_its_referrers_are_known(self, images_of, named):
        (image,) = await images_of(self.layout(named=named))
        assert str(image.root.digest) == self.image["digest"]
        assert [referrer.entry.digest for referrer in image.referrers] == [
            digest(dumps(self.signature)),
            digest(dumps(self.countersignature)),
        ]

    async def test_cosign_says_what_is_a_signature(self, images_of):
        kinds = {Image(): "dev.cosignproject.cosign/image", OTHER: "dev.cosignproject.cosign/sigs"}
        listed = [
            archives.descriptor(archives.MANIFEST, archives.oci_manifest(image), annotations={"kind": kind})
            for image, kind in kinds.items()
        ]
        entries = [*archives.oci_blobs(Image()), *archives.oci_blobs(OTHER)]
        (image,) = await images_of(archives.layout(entries, archives.oci_index(listed)))
        assert image.root.digest == digest(archives.oci_manifest(Image()))

    async def test_a_lone_signature_is_what_is_pushed(self, images_of):
        alone = dumps(json.loads(archives.oci_manifest(OTHER)) | {"subject": {"digest": str(digest(b"x")), "size": 1}})
        index = archives.oci_index([archives.descriptor(archives.MANIFEST, alone)])
        (image,) = await images_of(archives.layout([*archives.oci_blobs(OTHER), archives.blob(alone)], index))
        assert image.root.digest == digest(alone)

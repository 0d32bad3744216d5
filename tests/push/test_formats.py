"""Every archive format into a real registry, and read back by a reader that is not the project's."""

from __future__ import annotations

import json

import pytest

from registry_spooler.archive.compression import Compression
from registry_spooler.errors import ArchiveError
from registry_spooler.push.pusher import PushOptions
from support.images import archives
from support.images.archive_parts import COMPRESSORS, Image, big_layer, layer, make_tar, read_tar
from support.images.real_archives import SEVERAL, SINGLE, RealArchives
from support.programs.desk import Desk
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader, skopeo_inspect


@pytest.mark.parametrize("name", archives.EXAMPLES)
async def test_a_format_gives_one_digest_however_it_is_wrapped(
    name: str, desk: Desk, reader: Reader, repository: str
) -> None:
    results = [
        await desk.push(archives.EXAMPLES[name], f"{repository}{suffix.replace('.', '-')}:v1", suffix=suffix)
        for suffix in (".tar", ".tgz", ".tar.zst")
    ]
    assert len({result.digest for result in results}) == 1
    for result in results:
        assert reader.image(result.reference.repository, "v1").digest == str(result.digest)


@pytest.mark.parametrize("suffix", sorted(COMPRESSORS))
async def test_every_known_suffix(suffix: str, desk: Desk, reader: Reader, repository: str) -> None:
    result = await desk.push(archives.podman_docker(), repository, suffix=suffix)
    assert reader.image(repository).diff_ids == tuple(Image().diff_ids)
    assert result.platforms == ("linux/amd64",)
    assert result.counts.blobs_uploaded == 3


@pytest.mark.parametrize("name", SINGLE)
async def test_what_real_tools_write(
    name: str, desk: Desk, reader: Reader, registry: RunningRegistry, repository: str, real_archives: RealArchives
) -> None:
    (result,) = await desk.push_path(real_archives.path(name), f"{repository}:v1")
    image = reader.image(repository, "v1")
    assert image.digest == str(result.digest)
    assert result.size_bytes == len(image.content) + sum(
        blob["size"] for blob in (image.manifest["config"], *image.manifest["layers"])
    )
    assert skopeo_inspect(registry, repository, "v1")["Digest"] == str(result.digest)


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
async def test_the_manifests_of_an_oci_archive_are_pushed_byte_for_byte(
    suffix: str, desk: Desk, reader: Reader, repository: str
) -> None:
    images = [Image(), Image(platform="linux/arm64/v8", layers=(layer("arm"),))]
    result = await desk.push(archives.containerd(images, attest=True), repository, suffix=suffix)
    pushed = reader.image(repository)
    assert [child.content for child in pushed.children[::2]] == [archives.oci_manifest(image) for image in images]
    assert result.platforms == ("linux/amd64", "linux/arm64/v8")
    assert len(pushed.children) == 4  # each with its attestation


async def test_an_index_that_names_a_manifest_twice_is_pushed_byte_for_byte(
    desk: Desk, reader: Reader, repository: str
) -> None:
    image = archives.oci_manifest(Image())
    variants = [{"os": "linux", "architecture": "arm", "variant": variant} for variant in ("v6", "v7")]
    described = [archives.descriptor(archives.MANIFEST, image, platform=platform) for platform in variants]
    index = json.dumps(json.loads(archives.oci_index(described)), indent=3).encode()
    entries = [*archives.oci_blobs(Image()), archives.blob(index)]
    tar = archives.layout(entries, archives.oci_index([archives.descriptor(archives.INDEX, index)]))

    result = await desk.push(tar, repository)

    assert reader.image(repository).content == index
    assert result.platforms == ("linux/arm/v6", "linux/arm/v7")
    assert result.missing == ()


async def test_a_docker_archive_compressed_as_set(desk: Desk, reader: Reader, repository: str) -> None:
    types = {}
    for compression in (Compression.GZIP, Compression.ZSTD, Compression.NONE):
        to = f"{repository}/{compression.value}"
        await desk.push(archives.podman_docker(), to, options=PushOptions(compression=compression))
        image = reader.image(to)
        assert image.diff_ids == tuple(Image().diff_ids)
        types[compression] = {found.media_type.rpartition(".")[2] for found in image.layers}
    assert types == {Compression.GZIP: {"tar+gzip"}, Compression.ZSTD: {"tar+zstd"}, Compression.NONE: {"tar"}}


class TestDockersClassicStore:
    """An OCI layout over plain layers, with a manifest.json beside it."""

    @pytest.mark.parametrize("suffix", [".tar", ".tgz"])
    async def test_its_layers_are_compressed(self, suffix: str, desk: Desk, reader: Reader, repository: str) -> None:
        large = Image(layers=(big_layer(3_000_000), layer("top")))
        result = await desk.push(archives.docker_25(large), repository, suffix=suffix)
        image = reader.image(repository)
        assert image.diff_ids == tuple(large.diff_ids)
        assert {found.media_type for found in image.layers} == {archives.LAYER_GZIP}
        assert result.counts.uploaded_bytes < 2_000_000
        again = await desk.push(archives.podman_docker(large), f"{repository}:podman")
        assert again.digest == result.digest

    @pytest.mark.parametrize("suffix", [".tar", ".tgz"])
    async def test_no_compression_keeps_it_byte_for_byte(
        self, suffix: str, desk: Desk, reader: Reader, repository: str
    ) -> None:
        options = PushOptions(compression=Compression.NONE)
        await desk.push(archives.docker_25(), repository, suffix=suffix, options=options)
        assert reader.image(repository).content == archives.oci_manifest(Image(), compress=bytes)

    @pytest.mark.parametrize("suffix", [".tar", ".tgz"])
    async def test_an_index_that_names_nothing(self, suffix: str, desk: Desk, reader: Reader, repository: str) -> None:
        """What docker 25.0 saves for `IMAGE@DIGEST` or an ID."""
        files = read_tar(archives.docker_25(Image(names=())))
        index = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":null}'
        await desk.push(make_tar((files | {"index.json": index}).items()), repository, suffix=suffix)
        assert reader.image(repository).diff_ids == tuple(Image().diff_ids)

    async def test_a_layer_that_only_the_registry_has(self, desk: Desk, reader: Reader, repository: str) -> None:
        plain = archives.oci_archive(Image(layers=(layer("first"),)), compress=bytes)
        await desk.push(plain, f"{repository}:base")
        await desk.push(archives.thin(archives.docker_25(), layer("first")), repository)
        assert reader.image(repository).content == archives.oci_manifest(Image(), compress=bytes)


async def test_a_layer_that_comes_twice_is_sent_once(desk: Desk, reader: Reader, repository: str) -> None:
    twice = Image(layers=(layer("a"), layer("b"), layer("a")))
    result = await desk.push(archives.docker_legacy(twice), repository)
    assert reader.image(repository).diff_ids == tuple(twice.diff_ids)
    assert result.counts.blobs_uploaded == 3  # two layers and the config


class TestSeveralImages:
    APP = Image(names=("localhost/app:1",), layers=(layer("app"), layer("shared")))
    WEB = Image(names=("quay.io/team/web:2",), layers=(layer("web"), layer("shared")))

    @pytest.mark.parametrize("suffix", [".tar", ".tgz"])
    async def test_the_one_that_is_called_as_the_file_is(self, suffix: str, desk: Desk, reader: Reader) -> None:
        await desk.push(archives.podman_docker(self.APP, self.WEB), "team/web:2", suffix=suffix)
        assert reader.image("team/web", "2").diff_ids == tuple(self.WEB.diff_ids)

    async def test_none_is_called_so(self, desk: Desk, reader: Reader, repository: str) -> None:
        with pytest.raises(ArchiveError) as caught:
            await desk.push(archives.podman_docker(self.APP, self.WEB), repository)
        assert "localhost/app:1" in str(caught.value)
        assert "quay.io/team/web:2" in str(caught.value)
        assert reader.tags(repository) == []

    @pytest.mark.parametrize("suffix", [".tar", ".tgz"])
    async def test_a_bundle_goes_where_its_names_say(self, suffix: str, desk: Desk, reader: Reader) -> None:
        unique = f"bundle{suffix.replace('.', '-')}"
        images = [
            Image(names=(f"localhost/{unique}/app:1", f"localhost/{unique}/app:latest"), layers=self.APP.layers),
            Image(names=(f"quay.io/{unique}/web:2",), layers=self.WEB.layers),
        ]
        results = await desk.push_bundle(archives.podman_docker(*images), suffix=suffix)
        assert {str(result.reference) for result in results} == {
            f"{unique}/app:1",
            f"{unique}/app:latest",
            f"{unique}/web:2",
        }
        assert reader.image(f"{unique}/app", "latest").diff_ids == tuple(self.APP.diff_ids)
        assert reader.image(f"{unique}/web", "2").diff_ids == tuple(self.WEB.diff_ids)
        assert sum(result.counts.blobs_mounted for result in results) >= 1  # the shared layer, from one to the other

    async def test_a_bundle_without_names(self, desk: Desk) -> None:
        with pytest.raises(ArchiveError, match="no name"):
            await desk.push_bundle(archives.podman_docker(self.APP, Image(names=())))

    async def test_a_bundle_that_gives_a_name_twice(self, desk: Desk, reader: Reader) -> None:
        once, again = Image(names=("localhost/twice:1",)), Image(names=("quay.io/twice:1",), layers=(layer("x"),))
        with pytest.raises(ArchiveError, match="twice:1"):
            await desk.push_bundle(archives.podman_docker(once, again))
        assert reader.tags("twice") == []

    async def test_what_podman_writes(self, desk: Desk, reader: Reader, real_archives: RealArchives) -> None:
        results = await desk.push_path(real_archives.path(SEVERAL), None)
        assert sorted(str(result.reference) for result in results) == ["catalog/app:v1", "catalog/app:v2"]
        for result in results:
            assert reader.image("catalog/app", str(result.reference.tag)).digest == str(result.digest)


class TestMissingParts:
    AMD, ARM = Image(), Image(platform="linux/arm64", layers=(layer("arm"),))
    S390 = Image(platform="linux/s390x", layers=(layer("s390"),))

    @pytest.mark.parametrize("suffix", [".tar", ".tgz"])
    async def test_one_platform_left_takes_the_tag_itself(
        self, suffix: str, desk: Desk, reader: Reader, repository: str
    ) -> None:
        tar = archives.containerd([self.AMD, self.ARM], missing=[self.ARM])
        result = await desk.push(tar, repository, suffix=suffix)
        assert reader.image(repository).content == archives.oci_manifest(self.AMD)
        assert result.missing == (f"sha256:{archives.hexdigest(archives.oci_manifest(self.ARM))}",)
        assert result.platforms == ("linux/amd64",)

    async def test_the_attestation_of_a_platform_that_is_left_out_is_left_out(
        self, desk: Desk, reader: Reader, repository: str
    ) -> None:
        tar = archives.containerd([self.AMD, self.ARM], missing=[self.ARM], attest=True)
        result = await desk.push(tar, repository)
        of_amd, of_arm = (archives.hexdigest(archives.attestation(image)[0]) for image in (self.AMD, self.ARM))
        pushed = [child["digest"] for child in reader.image(repository).manifest["manifests"]]
        amd, arm = (archives.hexdigest(archives.oci_manifest(image)) for image in (self.AMD, self.ARM))
        assert pushed == [f"sha256:{amd}", f"sha256:{of_amd}"]
        assert set(result.missing) == {f"sha256:{arm}", f"sha256:{of_arm}"}

    async def test_several_left_are_a_smaller_index(self, desk: Desk, reader: Reader, repository: str) -> None:
        tar = archives.containerd([self.AMD, self.ARM, self.S390], missing=[self.ARM])
        result = await desk.push(tar, repository)
        index = reader.image(repository)
        assert [child.content for child in index.children] == [
            archives.oci_manifest(image) for image in (self.AMD, self.S390)
        ]
        assert result.missing == (f"sha256:{archives.hexdigest(archives.oci_manifest(self.ARM))}",)

    async def test_what_the_registry_has_counts_as_present(self, desk: Desk, reader: Reader, repository: str) -> None:
        whole = archives.containerd([self.AMD, self.ARM])
        first = await desk.push(whole, repository)
        second = await desk.push(archives.containerd([self.AMD, self.ARM], missing=[self.ARM]), repository)
        assert second.digest == first.digest
        assert second.missing == ()
        # Whatever the archive held of it, it is the same image, of the same size and as many blobs.
        assert second.size_bytes == first.size_bytes
        assert (first.counts.blobs_uploaded, second.counts.blobs_existing) == (
            second.counts.blobs_existing,
            first.counts.blobs_uploaded,
        )
        assert second.counts.blobs_uploaded == 0

    async def test_one_platform_that_only_the_registry_has(self, desk: Desk, reader: Reader, repository: str) -> None:
        first = await desk.push(archives.oci_archive(self.ARM), f"{repository}:arm")
        second = await desk.push(archives.containerd([self.AMD, self.ARM], missing=[self.AMD, self.ARM]), repository)
        assert (second.digest, second.size_bytes) == (first.digest, first.size_bytes)
        assert (second.counts.blobs_uploaded, second.counts.blobs_existing) == (0, first.counts.blobs_uploaded)

    async def test_an_index_inside_that_only_the_registry_has(
        self, desk: Desk, reader: Reader, repository: str
    ) -> None:
        inner = archives.oci_index([archives.descriptor(archives.MANIFEST, archives.oci_manifest(self.ARM))])
        outer = archives.oci_index(
            [
                archives.descriptor(archives.MANIFEST, archives.oci_manifest(self.AMD)),
                archives.descriptor(archives.INDEX, inner),
            ]
        )
        root = archives.oci_index([archives.descriptor(archives.INDEX, outer)])
        thin = [*archives.oci_blobs(self.AMD), archives.blob(outer)]
        whole = [*thin, *archives.oci_blobs(self.ARM), archives.blob(inner)]
        first = await desk.push(archives.layout(whole, root), repository)
        second = await desk.push(archives.layout(thin, root), repository)
        assert (second.digest, second.size_bytes) == (first.digest, first.size_bytes)

    async def test_nothing_left(self, desk: Desk, reader: Reader, repository: str) -> None:
        with pytest.raises(ArchiveError, match="linux/arm64"):
            await desk.push(archives.containerd([self.AMD, self.ARM], missing=[self.AMD, self.ARM]), repository)
        assert reader.tags(repository) == []

    @pytest.mark.parametrize("suffix", [".tar", ".tgz"])
    async def test_a_thin_archive(self, suffix: str, desk: Desk, reader: Reader, repository: str) -> None:
        image = Image(layers=(layer("base"), layer("change")))
        await desk.push(archives.oci_archive(Image(layers=(layer("base"),))), f"{repository}:base")
        tar = archives.thin(archives.oci_archive(image), archives.gz(layer("base")))
        result = await desk.push(tar, f"{repository}:v2", suffix=suffix)
        assert reader.image(repository, "v2").diff_ids == tuple(image.diff_ids)
        assert (result.counts.blobs_uploaded, result.counts.blobs_existing) == (2, 1)

    async def test_a_layer_that_nobody_has(self, desk: Desk, reader: Reader, repository: str) -> None:
        gone = archives.gz(layer("second"))
        with pytest.raises(ArchiveError) as caught:
            await desk.push(archives.thin(archives.oci_archive(), gone), repository)
        assert archives.hexdigest(gone) in str(caught.value)
        assert reader.tags(repository) == []


def with_referrer(image: Image) -> tuple[bytes, bytes]:
    """An OCI layout that lists a signature beside the image that it is about, as oras and cosign write it."""
    manifest = archives.oci_manifest(image)
    subject = archives.descriptor(archives.MANIFEST, manifest)
    config = archives.descriptor("application/vnd.oci.empty.v1+json", b"{}")
    signature = archives.dumps(
        {
            "schemaVersion": 2,
            "mediaType": archives.MANIFEST,
            "artifactType": "application/vnd.example.signature",
            "config": config,
            "layers": [archives.descriptor("application/vnd.example.signature", b"signed, sealed")],
            "subject": subject,
        }
    )
    named = subject | {"annotations": {"org.opencontainers.image.ref.name": "1"}}
    index = archives.oci_index([named, archives.descriptor(archives.MANIFEST, signature)])
    entries = [*archives.oci_blobs(image), *map(archives.blob, (signature, b"{}", b"signed, sealed"))]
    return archives.layout(entries, index), signature


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
async def test_a_signature_goes_with_its_image(suffix: str, desk: Desk, reader: Reader, repository: str) -> None:
    tar, signature = with_referrer(Image())
    result = await desk.push(tar, repository, suffix=suffix)
    unsigned = await desk.push(archives.oci_archive(Image()), f"{repository}:unsigned")
    assert (unsigned.digest, unsigned.size_bytes) == (result.digest, result.size_bytes)
    assert reader.image(repository).content == archives.oci_manifest(Image())
    signed = reader.image(repository, f"sha256:{archives.hexdigest(signature)}")
    assert signed.content == signature
    fallback = f"sha256-{archives.hexdigest(archives.oci_manifest(Image()))}"
    assert [child.content for child in reader.image(repository, fallback).children] == [signature]


async def test_a_layer_that_nobody_can_look_into(desk: Desk, reader: Reader, repository: str) -> None:
    """An encrypted layer's diff ID is that of what is inside."""
    manifest = archives.oci_manifest(Image())
    encrypted = manifest.replace(b".tar+gzip", b".tar+gzip+encrypted")
    tar = archives.layout(
        [*archives.oci_blobs(Image()), archives.blob(encrypted)],
        archives.oci_index([archives.descriptor(archives.MANIFEST, encrypted)]),
    )
    result = await desk.push(tar, repository)
    assert str(result.digest) == f"sha256:{archives.hexdigest(encrypted)}"

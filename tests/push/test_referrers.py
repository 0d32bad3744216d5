"""Signatures, attestations and SBOMs travel with the image that they speak of."""

from __future__ import annotations

import json
from typing import Any

import pytest

from registry_spooler.progress import ImageResult
from support.images import archives, signed
from support.images.archive_parts import Image, hexdigest, layer
from support.images.archives import INDEX, MANIFEST, descriptor, oci_manifest
from support.images.signed import ARM, Attached
from support.programs.desk import Desk
from support.registries.verify import Reader

APP = Image(names=("registry.example/team/app:1",))
WEB = Image(names=("registry.example/team/web:2",), layers=(layer("web"),))
OTHER = oci_manifest(Image(layers=(layer("in no archive"),)))

both = pytest.mark.parametrize("suffix", [".tar", ".tgz"])


def tag(subject: bytes, suffix: str) -> str:
    """Where cosign looks."""
    return f"sha256-{hexdigest(subject)}{suffix}"


def content(reader: Reader, repository: str, reference: str) -> bytes:
    """A manifest that the registry has, with all its blobs."""
    return reader.image(repository, reference).content


def referrers(reader: Reader, repository: str, subject: bytes) -> list[bytes]:
    """What the fallback index lists, since this registry keeps no list itself."""
    return [child.content for child in reader.image(repository, tag(subject, "")).children]


def left_out(result: ImageResult) -> dict[str, str]:
    return {str(entry.digest): entry.reason for entry in result.left_out}


class TestCosign:
    SIGS, ATTS, SBOMS = signed.signature(oci_manifest(APP)), signed.attestation(oci_manifest(APP)), signed.sbom()

    @both
    async def test_what_it_saves_by_kind(self, suffix: str, desk: Desk, reader: Reader, repository: str) -> None:
        tar = signed.cosign_save(APP, {"sigs": self.SIGS, "atts": self.ATTS, "sboms": self.SBOMS})
        result = await desk.push(tar, f"{repository}:v1", suffix=suffix)
        assert content(reader, repository, "v1") == oci_manifest(APP)
        for name, one in ((".sig", self.SIGS), (".att", self.ATTS), (".sbom", self.SBOMS)):
            assert content(reader, repository, tag(oci_manifest(APP), name)) == one.manifest
        assert (result.referrers, result.left_out) == (3, ())

    @both
    async def test_bundles_that_the_index_does_not_list(
        self, suffix: str, desk: Desk, reader: Reader, repository: str
    ) -> None:
        bundles = [signed.bundle(oci_manifest(APP), content=text) for text in (b'{"one":1}', b'{"two":2}')]
        stray = signed.bundle(OTHER)
        result = await desk.push(signed.cosign_save(APP, {}, unlisted=[*bundles, stray]), repository, suffix=suffix)
        found = referrers(reader, repository, oci_manifest(APP))
        assert sorted(found) == sorted(one.manifest for one in bundles)
        assert not reader.has(repository, stray.digest)
        assert (result.referrers, result.left_out) == (2, ())

    @both
    async def test_an_index(self, suffix: str, desk: Desk, reader: Reader, repository: str) -> None:
        index = signed.index_of(APP, ARM)
        attached = {"sigs": signed.signature(index), "atts": signed.attestation(oci_manifest(ARM))}
        result = await desk.push(signed.cosign_save_index(index, [APP, ARM], attached), repository, suffix=suffix)
        assert content(reader, repository, "latest") == index
        assert content(reader, repository, tag(index, ".sig")) == attached["sigs"].manifest
        assert content(reader, repository, tag(oci_manifest(ARM), ".att")) == attached["atts"].manifest
        assert result.referrers == 2

    async def test_a_signature_of_something_else_is_left_out(self, desk: Desk, reader: Reader, repository: str) -> None:
        wrong = signed.signature(OTHER)
        result = await desk.push(signed.cosign_save(APP, {"sigs": wrong}), repository)
        assert reader.tags(repository) == ["latest"]
        assert result.referrers == 0
        assert left_out(result) == {
            wrong.digest: f"it speaks of sha256:{hexdigest(OTHER)}, which the archive does not hold"
        }

    async def test_the_second_of_two_for_one_tag_is_left_out(self, desk: Desk, reader: Reader, repository: str) -> None:
        provenance = signed.provenance(APP)
        listed = [
            descriptor(MANIFEST, oci_manifest(APP)),
            self.ATTS.listed(kind="dev.cosignproject.cosign/atts"),
            archives.attestation_descriptor(APP, provenance.manifest),
        ]
        result = await desk.push(signed.layout_of(listed, APP, attached=[self.ATTS, provenance]), repository)
        assert content(reader, repository, tag(oci_manifest(APP), ".att")) == self.ATTS.manifest
        assert left_out(result) == {
            provenance.digest: f"another entry, {self.ATTS.digest}, goes to its tag {tag(oci_manifest(APP), '.att')}"
        }

    @both
    async def test_tags_that_somebody_copied_as_they_are(
        self, suffix: str, desk: Desk, reader: Reader, repository: str
    ) -> None:
        listing = archives.oci_index([descriptor(MANIFEST, (one := signed.bundle(oci_manifest(APP))).manifest)])
        listed = [
            descriptor(MANIFEST, oci_manifest(APP), annotations={signed.REF_NAME: "v1"}),
            self.SIGS.listed(**{signed.REF_NAME: tag(oci_manifest(APP), ".sig")}),
            descriptor(INDEX, listing, annotations={signed.REF_NAME: tag(oci_manifest(APP), "")}),
        ]
        tar = signed.layout_of(listed, APP, index=listing, attached=[self.SIGS, one])
        result = await desk.push(tar, repository, suffix=suffix)
        assert content(reader, repository, tag(oci_manifest(APP), ".sig")) == self.SIGS.manifest
        assert referrers(reader, repository, oci_manifest(APP)) == [one.manifest]
        assert result.referrers == 2
        assert [entry.name for entry in result.left_out] == [f"(any):{tag(oci_manifest(APP), '')}"]


class TestHauler:
    @pytest.mark.parametrize("prefix", ["dev.hauler/", "dev.cosignproject.cosign/"])
    @both
    async def test_one_image(self, suffix: str, prefix: str, desk: Desk, reader: Reader, repository: str) -> None:
        subject = oci_manifest(APP)
        attached = {
            "sigs": signed.signature(subject),
            "atts": signed.attestation(subject),
            "sboms": signed.sbom(),
            "referrers": signed.bundle(subject),
        }
        result = await desk.push(signed.hauler({APP: attached}, prefix=prefix), repository, suffix=suffix)
        assert content(reader, repository, "latest") == subject
        for name, kind in ((".sig", "sigs"), (".att", "atts"), (".sbom", "sboms")):
            assert content(reader, repository, tag(subject, name)) == attached[kind].manifest
        assert referrers(reader, repository, subject) == [attached["referrers"].manifest]
        assert (result.referrers, result.left_out) == (4, ())

    @both
    async def test_a_bundle(self, suffix: str, desk: Desk, reader: Reader, repository: str) -> None:
        """An SBOM says by its name alone what it speaks of."""
        app = Image(names=(f"registry.example/{repository}/app:1",))
        web = Image(names=(f"registry.example/{repository}/web:2",), layers=WEB.layers)
        sboms = {image: signed.sbom(image.names[0].encode()) for image in (app, web)}
        signature = signed.signature(oci_manifest(web))
        tar = signed.hauler({app: {"sboms": sboms[app]}, web: {"sboms": sboms[web], "sigs": signature}})
        results = await desk.push_bundle(tar, suffix=suffix)
        assert [result.referrers for result in results] == [1, 2]
        assert content(reader, f"{repository}/app", tag(oci_manifest(app), ".sbom")) == sboms[app].manifest
        assert content(reader, f"{repository}/web", tag(oci_manifest(web), ".sbom")) == sboms[web].manifest
        assert content(reader, f"{repository}/web", tag(oci_manifest(web), ".sig")) == signature.manifest

    async def test_one_image_of_several(self, desk: Desk, reader: Reader) -> None:
        signatures = {image: signed.signature(oci_manifest(image)) for image in (APP, WEB)}
        tar = signed.hauler({image: {"sigs": one} for image, one in signatures.items()})
        result = await desk.push(tar, "team/app:1")
        assert content(reader, "team/app", tag(oci_manifest(APP), ".sig")) == signatures[APP].manifest
        assert not reader.has("team/app", tag(oci_manifest(WEB), ".sig"))
        web = f"sha256:{hexdigest(oci_manifest(WEB))}"
        assert result.referrers == 1
        assert [entry.to_json() for entry in result.left_out] == [
            {
                "digest": web,
                "reason": "the file's name means another image of the archive",
                "name": "registry.example/team/web:2",
            },
            {
                "digest": signatures[WEB].digest,
                "reason": f"it speaks of {web}, which the file's name does not mean",
            },
        ]


class TestOthers:
    @both
    async def test_buildkit_lists_an_attestation_beside_its_image(
        self, suffix: str, desk: Desk, reader: Reader, repository: str
    ) -> None:
        provenance = signed.provenance(APP)
        listed = [
            descriptor(MANIFEST, oci_manifest(APP), platform=archives.platform_of(APP)),
            archives.attestation_descriptor(APP, provenance.manifest),
        ]
        result = await desk.push(signed.layout_of(listed, APP, attached=[provenance]), repository, suffix=suffix)
        assert content(reader, repository, "latest") == oci_manifest(APP)
        assert content(reader, repository, tag(oci_manifest(APP), ".att")) == provenance.manifest
        assert (result.referrers, result.left_out) == (1, ())

    @both
    async def test_containerd_notes_the_subject(self, suffix: str, desk: Desk, reader: Reader, repository: str) -> None:
        """Of a signature that has none itself, and of a bundle that has, of one platform."""
        index, arm = signed.index_of(APP, ARM), oci_manifest(ARM)
        signature, bundle = signed.signature(arm), signed.bundle(arm)
        noted = {signed.CONTAINERD_SUBJECT: f"sha256:{hexdigest(arm)}"}
        listed = [descriptor(INDEX, index), signature.listed(**noted), bundle.listed(**noted)]
        tar = signed.layout_of(listed, APP, ARM, index=index, attached=[signature, bundle])
        result = await desk.push(tar, repository, suffix=suffix)
        assert content(reader, repository, tag(arm, ".sig")) == signature.manifest
        assert referrers(reader, repository, arm) == [bundle.manifest]
        assert (result.referrers, result.left_out) == (2, ())

    @both
    async def test_a_signature_of_an_sbom(self, suffix: str, desk: Desk, reader: Reader, repository: str) -> None:
        """What speaks of an image is spoken of itself."""
        sbom = signed.bundle(oci_manifest(APP), content=b"an SBOM")
        signature, countersigned = signed.signature(sbom.manifest), signed.bundle(sbom.manifest)
        listed = [
            descriptor(MANIFEST, oci_manifest(APP)),
            countersigned.listed(),
            signature.listed(**{signed.CONTAINERD_SUBJECT: sbom.digest}),
            sbom.listed(),
        ]
        tar = signed.layout_of(listed, APP, attached=[sbom, signature, countersigned])
        result = await desk.push(tar, repository, suffix=suffix)
        assert referrers(reader, repository, oci_manifest(APP)) == [sbom.manifest]
        assert referrers(reader, repository, sbom.manifest) == [countersigned.manifest]
        assert content(reader, repository, tag(sbom.manifest, ".sig")) == signature.manifest
        assert result.referrers == 3


class TestSeveralPlaces:
    """What one manifest speaks of, and where it is found, may be more than one thing."""

    @both
    async def test_one_sbom_of_two_platforms(self, suffix: str, desk: Desk, reader: Reader, repository: str) -> None:
        index, sbom = signed.index_of(APP, ARM), signed.sbom()
        of_both = [
            sbom.listed(**{signed.CONTAINERD_SUBJECT: f"sha256:{hexdigest(oci_manifest(image))}"})
            for image in (APP, ARM, APP)
        ]
        tar = signed.layout_of([descriptor(INDEX, index), *of_both], APP, ARM, index=index, attached=[sbom])
        result = await desk.push(tar, repository, suffix=suffix)
        for image in (APP, ARM):
            assert content(reader, repository, tag(oci_manifest(image), ".sbom")) == sbom.manifest
        assert (result.referrers, result.left_out) == (1, ())

    async def test_one_sbom_of_two_images(self, desk: Desk, reader: Reader, repository: str) -> None:
        """Each name says of which."""
        app = Image(names=(f"registry.example/{repository}/app:1",))
        web = Image(names=(f"registry.example/{repository}/web:2",), layers=WEB.layers)
        sbom = signed.sbom()
        results = await desk.push_bundle(signed.hauler({app: {"sboms": sbom}, web: {"sboms": sbom}}))
        assert [(result.referrers, result.left_out) for result in results] == [(1, ()), (1, ())]
        assert content(reader, f"{repository}/app", tag(oci_manifest(app), ".sbom")) == sbom.manifest
        assert content(reader, f"{repository}/web", tag(oci_manifest(web), ".sbom")) == sbom.manifest

    async def test_what_is_left_out_twice_is_told_once(self, desk: Desk, repository: str) -> None:
        stray = signed.bundle(OTHER)
        listed = [descriptor(MANIFEST, oci_manifest(APP)), stray.listed(), stray.listed(of="the same")]
        result = await desk.push(signed.layout_of(listed, APP, attached=[stray]), repository)
        assert [str(entry.digest) for entry in result.left_out] == [stray.digest]

    @pytest.mark.parametrize("noted", ["kind", "name", "kind and image's name"])
    @both
    async def test_a_subject_and_a_tag(
        self, suffix: str, noted: str, desk: Desk, reader: Reader, repository: str
    ) -> None:
        image, one = oci_manifest(APP), signed.bundle(oci_manifest(APP))
        kind = {"kind": "dev.cosignproject.cosign/sigs"}
        annotations = {
            "kind": kind,
            "name": {signed.REF_NAME: tag(image, ".sig")},
            "kind and image's name": {**kind, signed.REF_NAME: "v1"},
        }
        listed = [
            descriptor(MANIFEST, image, annotations={signed.REF_NAME: "v1"}),
            one.listed(),
            one.listed(**annotations[noted]),
        ]
        result = await desk.push(signed.layout_of(listed, APP, attached=[one]), f"{repository}:v1", suffix=suffix)
        assert content(reader, repository, "v1") == image
        assert content(reader, repository, tag(image, ".sig")) == one.manifest
        assert referrers(reader, repository, image) == [one.manifest]
        assert (result.referrers, result.left_out) == (1, ())


def unsigned(one: Attached) -> list[dict[str, Any]]:
    return [*(descriptor(MANIFEST, oci_manifest(image)) for image in (APP, WEB)), one.listed(kind="dev.hauler/sboms")]


async def test_what_nobody_can_tell_is_left_out(desk: Desk, reader: Reader) -> None:
    sbom = signed.sbom()
    named = [
        entry | {"annotations": {signed.REF_NAME: name}} for entry, name in zip(unsigned(sbom), "ab", strict=False)
    ]
    result = await desk.push(signed.layout_of([*named, unsigned(sbom)[2]], APP, WEB, attached=[sbom]), "tests/any:a")
    assert left_out(result) == {
        f"sha256:{hexdigest(oci_manifest(WEB))}": "the file's name means another image of the archive",
        sbom.digest: "nothing tells which of the archive's 2 images it speaks of",
    }


@both
async def test_one_without_its_blobs_is_left_out(suffix: str, desk: Desk, reader: Reader, repository: str) -> None:
    signature = signed.signature(oci_manifest(APP))
    tar = archives.thin(signed.cosign_save(APP, {"sigs": signature}), signature.blobs[1])
    result = await desk.push(tar, repository, suffix=suffix)
    assert content(reader, repository, "latest") == oci_manifest(APP)
    assert reader.tags(repository) == ["latest"]
    (reason,) = left_out(result).values()
    assert json.loads(signature.manifest)["layers"][0]["digest"] in reason


async def test_blobs_that_only_the_registry_has(desk: Desk, reader: Reader, repository: str) -> None:
    signature = signed.signature(oci_manifest(APP))
    tar = signed.cosign_save(APP, {"sigs": signature})
    first = await desk.push(tar, f"{repository}:one")
    again = await desk.push(archives.thin(tar, *signature.blobs), f"{repository}:two")
    assert (first.digest, first.referrers) == (again.digest, again.referrers)


async def test_a_hybrid_with_a_signature_stays_as_it_is(desk: Desk, reader: Reader, repository: str) -> None:
    """Compressing its layers would make another image of it."""
    files = archives.read_tar(archives.docker_25(APP))
    manifest = oci_manifest(APP, compress=bytes)
    signature = signed.signature(manifest)
    kinds = {"image": descriptor(MANIFEST, manifest), "sigs": signature.listed()}
    listed = [entry | {"annotations": {"kind": f"dev.hauler/{kind}"}} for kind, entry in kinds.items()]
    files |= {path: data for path, data in signature.entries if isinstance(data, bytes)}
    await desk.push(archives.make_tar((files | {"index.json": archives.oci_index(listed)}).items()), repository)
    assert content(reader, repository, "latest") == manifest
    assert content(reader, repository, tag(manifest, ".sig")) == signature.manifest

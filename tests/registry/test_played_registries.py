"""Registries that the tests cannot run, played as their users describe them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from registry_spooler.backoff import Backoff
from registry_spooler.errors import RegistryError
from registry_spooler.progress import Progress
from registry_spooler.registry.http.retry import RetryPolicy
from registry_spooler.registry.registry_client import RegistryClient
from registry_spooler.registry.uploads.vendors import LearnedLimits, UploadForm, UploadOptions
from support.registries.memory_blobs import Blob, noise
from support.registries.playedregistry import Behaviour, PlayedRegistry, running_registry

MIB = 1 << 20
QUICK = RetryPolicy(tries=4, backoff=Backoff(base_seconds=0.001, cap_seconds=0.01))


def first_chunk(first: int, now: int) -> str:
    """ECR's `Range` stays at the first chunk, though all are stored."""
    return f"0-{first - 1}"


PLAYED = {
    "by the book": Behaviour(),
    "distribution 2.8": Behaviour(signed_location=True, ranged=True),
    "relative Locations": Behaviour(relative_location=True, signed_location=True),
    "ECR": Behaviour(patch_status=201, range_of_patch=first_chunk, smallest_part_bytes=MIB, status=False),
    "GHCR": Behaviour(ranged_max_bytes=512 << 10),
    "GAR": Behaviour(ranged=False, second_stream=False),
    "Quay": Behaviour(range_of_status=lambda size: f"bytes=0-{size}", status_has_location=False),
    "Gitea": Behaviour(second_stream=False, relative_location=True, status=False),
    "zot": Behaviour(relative_location=True, range_of_status=lambda size: f"0-{max(0, size - 1)}"),
    "ACR": Behaviour(body_max_bytes=20 * MIB, whole_put=False),
    "a proxy's limit": Behaviour(body_max_bytes=MIB),
    "no Range at all": Behaviour(range_of_patch=lambda first, now: None),
    "a minimum": Behaviour(minimum_header=3 * MIB, smallest_part_bytes=3 * MIB),
    "a minimum beyond reason": Behaviour(minimum_header=10 << 30, smallest_part_bytes=10 << 30),
    "no blob in a PUT": Behaviour(whole_put=False),
    "mount not found": Behaviour(mount_status=404),
    "mount not allowed": Behaviour(mount_status=405),
}


def _client(registry: PlayedRegistry, options: UploadOptions | None = None) -> RegistryClient:
    return RegistryClient(registry.url, upload_options=options, retry=QUICK)


@pytest.mark.parametrize("kind", ["rewindable", "size known", "size unknown"])
@pytest.mark.parametrize("chunk", [None, MIB, 2 * MIB])
@pytest.mark.parametrize("name", PLAYED)
async def test_a_blob_arrives_whatever_the_registrys_habits(repository, name, chunk, kind):
    options = UploadOptions(chunk_size_bytes=chunk)
    large = Blob(noise(4 * MIB + 3), rewindable=kind == "rewindable", knows_size=kind != "size unknown")
    small = Blob(noise(100))
    async with running_registry(replace(PLAYED[name])) as registry, _client(registry, options) as client:
        for blob in (large, small):
            assert await client.mount_blob(repository, blob.digest, "another/repository") is False
            await client.put_blob(repository, blob.opener, Progress())
            assert registry.blobs[str(blob.digest)] == blob.content
            assert await client.blob_exists(repository, blob.digest) == len(blob.content)
    assert (large.opened, small.opened) == (1, 1)


async def test_what_was_learned_is_kept(repository):
    """The second blob to a registry without ranges costs no failed request."""
    async with running_registry(Behaviour(ranged=False)) as registry, _client(registry) as client:
        for seed in (1, 2):
            blob = Blob(noise(2 * MIB, seed))
            await client.put_blob(repository, blob.opener, Progress())
        assert registry.count("PATCH") == 3


async def test_a_mount_that_was_not_made_leaves_its_session_to_the_upload(repository):
    blob = Blob(noise(2 * MIB))
    async with running_registry() as registry, _client(registry) as client:
        await client.mount_blob(repository, blob.digest, "another/repository")
        await client.put_blob(repository, blob.opener, Progress())
        assert registry.count("POST") == 1
        await client.mount_blob(repository, blob.digest, "another/repository")
    assert (registry.sessions, registry.count("DELETE")) == ({}, 1)


async def test_the_user_may_set_the_form(repository):
    blob = Blob(noise(3 * MIB))
    async with running_registry() as registry:
        async with _client(registry, UploadOptions(form=UploadForm.STREAM)) as client:
            await client.put_blob(repository, blob.opener, Progress())
        async with _client(registry, UploadOptions(form=UploadForm.RANGED, chunk_size_bytes=MIB)) as client:
            await client.put_blob(repository, blob.opener, Progress())
        ranges = [headers.get("content-range") for method, _, headers in registry.requests if method == "PATCH"]
    assert ranges == [None, "0-1048575", "1048576-2097151", "2097152-3145727"]


async def test_a_registry_that_takes_no_pushes(repository):
    blob = Blob(noise(2 * MIB))
    async with running_registry(Behaviour(patch=False)) as registry, _client(registry) as client:
        with pytest.raises(RegistryError, match="405") as caught:
            await client.put_blob(repository, blob.opener, Progress())
    assert not caught.value.temporary
    assert registry.sessions == {}


async def test_less_stored_than_acknowledged_is_noticed_and_sent_again(repository):
    blob = Blob(noise(4 * MIB))
    async with running_registry(Behaviour(stores_at_most=MIB + 5)) as registry:
        async with _client(registry, UploadOptions(chunk_size_bytes=2 * MIB)) as client:
            await client.put_blob(repository, blob.opener, Progress())
        assert registry.blobs[str(blob.digest)] == blob.content


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("123.dkr.ecr.eu-west-1.amazonaws.com", (True, 10 * MIB, False)),
        ("ghcr.io", (False, 16 * MIB, True)),
        ("public.ecr.aws", (True, 10 * MIB, False)),
        ("europe-docker.pkg.dev", (False, 16 * MIB, True)),
        ("eu.gcr.io", (False, 16 * MIB, True)),
        ("me.azurecr.io", (True, 8 * MIB, True)),
        ("me.jfrog.io", (False, 16 * MIB, True)),
        ("notghcr.io", (True, 16 * MIB, True)),
        ("registry.example", (True, 16 * MIB, True)),
    ],
)
def test_what_is_known_about_hosts(host, expected):
    limits = LearnedLimits.of_host(host, UploadOptions())
    assert (limits.ranged, limits.chunk_bytes, limits.trusts_range) == expected


def test_the_users_wishes_end_the_guessing():
    options = UploadOptions(form=UploadForm.RANGED, chunk_size_bytes=3 * MIB)
    assert LearnedLimits.of_host("ghcr.io", options) == LearnedLimits(
        ranged=True, chunk_bytes=3 * MIB, long_chunk_bytes=3 * MIB, smallest_chunk_bytes=3 * MIB
    )

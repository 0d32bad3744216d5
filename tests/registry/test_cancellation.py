"""An upload that is cancelled, at every await: nothing is committed, nothing is left over, and others go on."""

from __future__ import annotations

import asyncio
import gc

import anyio
import pytest

from registry_spooler.backoff import Backoff
from registry_spooler.errors import UploadLost
from registry_spooler.oci.digest import Digest
from registry_spooler.progress import Progress
from registry_spooler.registry.http.retry import RetryPolicy
from registry_spooler.registry.registry_client import RegistryClient
from registry_spooler.registry.uploads.vendors import UploadForm, UploadOptions
from registry_spooler.registry.uploads.window import ChunkBudget
from support.registries.lyingserver import lying, page
from support.registries.memory_blobs import Blob, MemoryReader, noise
from support.registries.playedregistry import Behaviour, running_registry

MIB = 1 << 20
STEPS_MAX = 400


async def _cancelled_after(step: int, work) -> bool:
    """Run work in a task that is cancelled after so many turns of the event loop; was it still going on?"""
    task = asyncio.ensure_future(work)
    for _ in range(step):
        if task.done():
            break
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


@pytest.mark.parametrize("form", [UploadForm.RANGED, UploadForm.STREAM])
@pytest.mark.parametrize("kind", ["rewindable", "once"])
async def test_an_upload_may_be_cancelled_at_every_turn_of_the_loop(repository, form, kind):
    budget = ChunkBudget()
    options = UploadOptions(chunk_size_bytes=MIB, form=form)
    blob = Blob(noise(3 * MIB), rewindable=kind == "rewindable", knows_size=kind == "rewindable")
    async with (
        running_registry() as registry,
        RegistryClient(registry.url, upload_options=options, budget=budget) as client,
    ):
        for step in range(STEPS_MAX):
            if not await _cancelled_after(step, client.put_blob(repository, blob.opener, Progress())):
                break
            assert budget.taken_bytes == 0
            # A session that the registry was just opening is not known to us; any other one is cancelled.
            if registry.count("PATCH"):
                await _until_quiet(registry)
            registry.sessions.clear()
            registry.requests.clear()
            # A commit that was on its way may have been made; then the next round is the last that matters.
            registry.blobs.clear()
        else:
            raise AssertionError(f"the upload takes more than {STEPS_MAX} turns")
        assert step > 10
        assert registry.blobs[str(blob.digest)] == blob.content
        # The connections that were cut are not used again, and the client is as good as new.
        assert await client.blob_exists(repository, blob.digest) == 3 * MIB
    gc.collect()


async def _until_quiet(registry) -> None:
    """The registry may still be at work on what it got before the cancellation."""
    with anyio.fail_after(5):
        while registry.sessions:  # noqa: ASYNC110 - the registry has no event for it
            await asyncio.sleep(0)


async def test_a_held_session_is_cancelled_by_a_holder_that_is_cancelled(repository):
    async with running_registry() as registry, RegistryClient(registry.url) as client:
        with anyio.CancelScope() as scope:
            upload = await client.begin_upload(repository)
            try:
                await upload.send(MemoryReader(noise(MIB)), Progress())
                scope.cancel()
                await anyio.sleep(1)
            finally:
                await upload.cancel()
        assert scope.cancelled_caught
        assert registry.sessions == {}


async def test_the_end_of_a_client_cancels_what_mounts_have_opened(repository):
    blob = Blob(noise(100))
    async with running_registry() as registry:
        async with RegistryClient(registry.url) as client:
            await client.mount_blob(repository, blob.digest, "another/repository")
        assert registry.sessions == {}


async def test_a_registry_that_loses_every_session_is_given_up(repository):
    """Restarts are bounded, and the error is one that may pass."""
    retry = RetryPolicy(tries=2, backoff=Backoff(base_seconds=0.001))

    async with running_registry(Behaviour(status=False)) as registry:

        def gate(request):
            if request.method == "PATCH":
                registry.sessions.clear()

        registry.gate = gate
        async with RegistryClient(registry.url, retry=retry) as client:
            for rewindable in (True, False):
                blob = Blob(noise(2 * MIB), rewindable=rewindable, knows_size=rewindable)
                with pytest.raises(UploadLost) as caught:
                    await client.put_blob(repository, blob.opener, Progress())
                assert caught.value.temporary
                assert blob.opened == 4


@pytest.mark.parametrize("mounts", [False, True])
async def test_a_session_that_opens_while_nobody_wants_it_any_more_is_given_back(mounts):
    asked, answered = anyio.Event(), anyio.Event()
    requests = []

    async def answer(head, reader, writer):
        requests.append(head.split(" HTTP")[0])
        if head.startswith("POST"):
            asked.set()
            await asyncio.sleep(0.2)
            writer.write(page(202, "Location: /here\r\n"))
            answered.set()
        else:
            writer.write(page(204))

    async def open_one(client):
        if mounts:
            await client.mount_blob("a", Digest.of(b""), "b")
        else:
            await client.begin_upload("a")

    async with lying(answer) as url, RegistryClient(url) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(open_one, client)
        await asked.wait()
        tasks.cancel_scope.cancel()
    assert answered.is_set()
    assert requests[-1] == "DELETE /here"


async def test_a_session_that_does_not_open_is_not_waited_for_long():
    asked = anyio.Event()

    async def answer(head, reader, writer):
        asked.set()
        await asyncio.sleep(60)

    with anyio.move_on_after(20) as patience:
        async with lying(answer) as url, RegistryClient(url) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(client.begin_upload, "a")
            await asked.wait()
            tasks.cancel_scope.cancel()
    assert not patience.cancelled_caught

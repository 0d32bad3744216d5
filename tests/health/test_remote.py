"""What is remembered of images that came from outside: whole, although their blobs came in calls of their own."""

from __future__ import annotations

from registry_spooler.health.remote import PUSHED_SHOWN, UNFINISHED_MAX, RemoteTransfer, RemoteWork
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import BlobCounts, ImageResult, Progress


def blobs(repository: str, *, started: float = 100.0) -> RemoteTransfer:
    progress = Progress(blobs_uploaded=1, uploaded_bytes=1000)
    return RemoteTransfer(command="receive", reference=repository, started=started, progress=progress)


def image(name: str) -> RemoteTransfer:
    counts = BlobCounts(blobs_uploaded=1, blobs_existing=2, uploaded_bytes=7)
    result = ImageResult(reference=Reference.parse(name), digest=Digest.of(name.encode()), counts=counts)
    return RemoteTransfer(command="receive", reference=name, started=200.0, result=result)


def test_the_blobs_of_an_image_count_for_it_and_for_no_other() -> None:
    work = RemoteWork()
    for transfer in (blobs("app"), blobs("web"), blobs("app", started=150.0), image("app:1"), image("app:2")):
        work.ended(transfer)
    one, two = work.pushed
    assert ("app:1", 2007, 3) == (one["reference"], one["uploaded_bytes"], one["blobs"]["uploaded"])
    assert one["started"].startswith("1970-01-01T00:01:40")
    assert ("app:2", 7, 1) == (two["reference"], two["uploaded_bytes"], two["blobs"]["uploaded"])
    assert two["started"].startswith("1970-01-01T00:03:20")
    assert 2 == work.images


def test_neither_images_nor_blobs_without_one_fill_the_memory() -> None:
    work = RemoteWork()
    for number in range(3 * UNFINISHED_MAX):
        work.ended(blobs(f"lost-{number}"))
        work.ended(image(f"app:{number}"))
    assert UNFINISHED_MAX == len(work._unfinished)
    assert f"lost-{3 * UNFINISHED_MAX - 1}" in work._unfinished
    assert PUSHED_SHOWN == len(work.pushed)
    assert 3 * UNFINISHED_MAX == work.images

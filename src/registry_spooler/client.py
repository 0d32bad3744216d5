"""The Python client: push to, and look into, a registry that only the cluster's API server leads to.

    async with SpoolerClient.connect(namespace="registry") as client:
        receipt = await client.push(Path("app.tar"), "catalog/app:v2")
        print(receipt.digest)

It needs a kubeconfig (or to run in a pod), and in the cluster a pod with a spooler; no ingress, no port-forward. It
runs wherever Python does. All methods raise `registry_spooler.errors.SpoolerError`, whose text names the next step.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, Self

from registry_spooler.aio import task_group
from registry_spooler.archive.compression import Compression
from registry_spooler.kubernetes.answers import FailedFile, ImageDescription, SpoolerStatus
from registry_spooler.kubernetes.api import Cluster
from registry_spooler.kubernetes.cluster_errors import KubeError
from registry_spooler.kubernetes.config import log_in
from registry_spooler.kubernetes.objects.image_check import trouble_with
from registry_spooler.kubernetes.objects.nodes import list_nodes
from registry_spooler.kubernetes.pods import CONTAINER, SELECTOR, read_log
from registry_spooler.kubernetes.redial import RateLimit, Redial
from registry_spooler.kubernetes.remote_session import PodSession
from registry_spooler.kubernetes.transfer.dry_run import PushPlan
from registry_spooler.kubernetes.transfer.fetch import fetch, fetch_file
from registry_spooler.kubernetes.transfer.layer_deltas import DeltaMode
from registry_spooler.kubernetes.transfer.send import Published, SendOptions, open_source, plan, publish, send
from registry_spooler.kubernetes.wire import Document, reading
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import ImageResult, Progress
from registry_spooler.spool.filename import archive_suffix
from registry_spooler.text import rfc3339

LOG_LINES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a push or a spool file came to. Several images only for a bundle."""

    images: tuple[ImageResult, ...]
    started: datetime
    finished: datetime
    attempts: int = 1

    @property
    def image(self) -> ImageResult:
        """The image, or the first of several."""
        return self.images[0]

    @property
    def digest(self) -> Digest | None:
        """The image's digest, which the registry answers for by its tag; None after a deletion of nothing."""
        return self.image.digest

    def to_json(self) -> dict[str, Any]:
        """As in `.receipts`."""
        times = {"started": rfc3339(self.started), "finished": rfc3339(self.finished)}
        seconds = round((self.finished - self.started).total_seconds(), 3)
        tail = {"attempts": self.attempts, **times, "seconds": seconds}
        images = [{**image.to_json(), **tail} for image in self.images]
        return images[0] if len(images) == 1 else {"images": images, **tail}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Receipt:
        """Read a file of `.receipts`."""
        return cls(
            images=tuple(ImageResult.from_json(image) for image in document.get("images") or [document]),
            started=datetime.fromisoformat(str(document["started"])),
            finished=datetime.fromisoformat(str(document["finished"])),
            attempts=int(document.get("attempts") or 1),
        )


class SpoolerClient:
    """One pod's registry and spool directory. Made by `connect`; its methods may run side by side."""

    def __init__(self, session: PodSession) -> None:
        self._session = session

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        *,
        kubeconfig: Path | None = None,
        context: str | None = None,
        namespace: str | None = None,
        selector: str = SELECTOR,
        container: str = CONTAINER,
        pod: str | None = None,
        bytes_per_second: float | None = None,
        on_retry: Callable[[KubeError], None] = lambda _: None,
        on_waiting: Callable[[int], None] = lambda _: None,
    ) -> AsyncGenerator[Self]:
        """Log in as kubectl would, for the time of an `async with`. Nothing is asked of the pod yet.

        Of several pods that `selector` finds the first by name is used, or `pod`. `bytes_per_second` limits what is
        sent. `on_retry` is told of each broken connection that is dialled again, `on_waiting` how many other transfers
        the pod does first.
        """
        login = await log_in(kubeconfig=kubeconfig, context=context, namespace=namespace)
        rate = RateLimit(bytes_per_second) if bytes_per_second is not None else None
        async with Cluster(login) as cluster:
            redial = Redial(on_retry=on_retry)
            yield cls(
                PodSession(cluster, selector, container, pod=pod, rate=rate, redial=redial, on_waiting=on_waiting)
            )

    @property
    def server(self) -> str:
        """The API server's URL, for people."""
        return self._session.cluster.server

    @property
    def namespace(self) -> str:
        """The namespace that everything is done in."""
        return self._session.cluster.namespace

    async def pods(self) -> tuple[str, ...]:
        """The running pods that the selector finds, by name."""
        return tuple(container.pod for container in await self._session.containers())

    async def push(
        self,
        archive: Path | BinaryIO,
        reference: Reference | str | None,
        *,
        is_archive: bool | None = None,
        compression: Compression = Compression.GZIP,
        streams: int = 3,
        delta: Literal["auto", "never", "always"] = "auto",
        repack: bool = False,
        progress: Progress | None = None,
    ) -> Receipt:
        """Push an image, sending only what the registry lacks; returns when it answers for the tag.

        `archive` is a path or an open file, such as `sys.stdin.buffer`. With no `reference` every image goes to where
        the archive says. A file whose name has no archive's suffix and whose content is no image archive becomes an
        image of one layer; `is_archive` decides otherwise. `delta`: send only what is new inside a layer that is
        compressed here, where that saves half (auto). `repack`: compress the layers of an OCI archive anew, so that
        this goes for them too; the image then has another digest than in the archive.
        """
        if is_archive is None and (not isinstance(archive, Path) or archive_suffix(archive.name)):
            is_archive = True
        reference = _parsed(reference) if reference is not None else None
        started = datetime.now(UTC)
        progress = progress if progress is not None else Progress()
        options = SendOptions(compression=compression, streams=streams, delta=DeltaMode(delta), repack=repack)
        async with open_source(archive) as source:
            progress.bytes_total = getattr(source, "size", 0)
            images = await send(self._session, source, reference, progress, is_archive=is_archive, options=options)
        return Receipt(images=images, started=started, finished=datetime.now(UTC))

    async def plan(
        self,
        archive: Path | BinaryIO,
        reference: Reference | str | None,
        *,
        is_archive: bool | None = None,
        compression: Compression = Compression.GZIP,
        repack: bool = False,
    ) -> PushPlan:
        """Return what `push` would send, and what its tags have now; nothing is sent or changed."""
        if is_archive is None and (not isinstance(archive, Path) or archive_suffix(archive.name)):
            is_archive = True
        reference = _parsed(reference) if reference is not None else None
        async with open_source(archive) as source:
            options = SendOptions(compression=compression, repack=repack)
            return await plan(self._session, source, reference, is_archive=is_archive, options=options)

    async def publish(
        self, file: Path, name: str | None = None, *, on_sent: Callable[[int, int], None] = lambda *_: None
    ) -> Published:
        """Put a file into the spool directory, by its own name or `name`; the spooler pushes it then (see `wait`).

        `on_sent` is told how many bytes have been sent, and of how many.
        """
        redial = self._session.redial
        return await self._session.use(
            lambda remote: publish(remote, file, name or file.name, redial=redial, on_sent=on_sent)
        )

    async def wait(self, published: Published | str, *, timeout_seconds: float | None = None) -> Receipt:
        """Wait until a spool file is done; RemoteError with the reason when it fails, or is not done in time."""
        name, since = (published, None) if isinstance(published, str) else (published.name, published.since)
        options = ["--since", since] if since is not None else []
        options += ["--timeout", str(timeout_seconds)] if timeout_seconds is not None else []
        answer = await self._ask("wait", *options, "--", name)
        with reading("wait", "a receipt"):
            return Receipt.from_json(answer.fields())

    async def pull(
        self,
        reference: Reference | str,
        target: Path | BinaryIO,
        *,
        platform: str | None = None,
        archive_format: Literal["docker", "oci"] = "docker",
        unpack: bool = False,
        referrers: bool = True,
        on_bytes: Callable[[int], None] = lambda _: None,
        on_warning: Callable[[str], None] = lambda _: None,
    ) -> int:
        """Write an image as an archive, verified; the number of bytes. A path appears when it is complete.

        `unpack` writes the file that was pushed raw. `platform` (`os/arch`) chooses among several. `referrers`: an OCI
        archive also holds what speaks of the image, signatures and SBOMs. `on_warning` is told what is lacking all the
        same, in a sentence.
        """
        reference = _parsed(reference)
        options = ["--platform", platform] if platform else []
        if unpack:
            return await fetch_file(self._session, reference, options, target, on_bytes, on_warning)
        options += ["--format", archive_format, *([] if referrers else ["--no-referrers"])]
        return await fetch(self._session, reference, options, target, on_bytes, on_warning)

    async def repositories(self, *, tries: int | None = None) -> tuple[str, ...]:
        """All repositories. `tries`: how often one request is sent before it fails; the pod's setting otherwise."""
        options = ["--tries", str(tries)] if tries is not None else []
        return (await self._ask("list", "--json", *options)).strings()

    async def images(self) -> tuple[Reference, ...]:
        """All images, as repositories with their tags."""
        answer = await self._ask("list", "--tags", "--json")
        with reading("list", "a list of images"):
            return tuple(Reference.parse(text) for text in answer.strings())

    async def tags(self, repository: str) -> tuple[str, ...]:
        """A repository's tags."""
        return (await self._ask("tags", "--json", "--", repository)).strings()

    async def inspect(self, reference: Reference | str) -> ImageDescription:
        """Return digest, size, platforms and layers of an image."""
        return ImageDescription.read(await self._ask("inspect", "--json", "--", str(_parsed(reference))))

    async def manifest(self, reference: Reference | str) -> bytes:
        """Return an image's manifest as the registry has it, byte for byte."""
        return await self._session.ask(lambda remote: remote.call("inspect", "--raw", "--", str(_parsed(reference))))

    async def delete(self, reference: Reference | str) -> Digest | None:
        """Remove one tag, and nothing else; the digest that it had, or None when it was gone already."""
        digest = (await self._ask("delete", "--json", "--", str(_parsed(reference))))["digest"].text_or_none()
        with reading("delete.digest", "a digest"):
            return Digest.parse(digest) if digest else None

    async def status(self) -> SpoolerStatus:
        """Return what the spooler is doing."""
        return SpoolerStatus.read(await self._ask("status"))

    async def failed(self) -> tuple[FailedFile, ...]:
        """Return the spool files that failed, oldest first."""
        return tuple(FailedFile.read(entry) for entry in (await self._ask("failed", "--json")).entries())

    async def retry(self, name: str, new_name: str | None = None) -> None:
        """Put a failed file back into the spool directory; `new_name` is another file name, or REPO[:TAG]."""
        options = ("--as", new_name) if new_name is not None else ()
        await self._session.use(lambda remote: remote.call("retry", *options, "--", name))

    async def discard(self, name: str) -> None:
        """Remove a failed file, and the record of why it failed, for good."""
        await self._session.use(lambda remote: remote.call("discard", "--yes", "--", name))

    async def pull_troubles(self, pull_reference: str) -> dict[str, str]:
        """Start a pod of an image on every node; return why a node cannot get it, by the nodes' names, '' if it can.

        It needs the right to list nodes, and to create, get and delete pods.
        """
        cluster, found = self._session.cluster, dict[str, str]()

        async def look(node: str) -> None:
            found[node] = await trouble_with(cluster, pull_reference, node=node, always=True)

        async with task_group() as tasks:
            for node in await list_nodes(cluster):
                tasks.start_soon(look, node.name)
        return dict(sorted(found.items()))

    async def logs(self, *, follow: bool = False, lines: int = LOG_LINES) -> AsyncIterator[str]:
        """The spooler's last lines, and with `follow` those to come."""
        container = (await self._session.remote()).container
        async for line in read_log(self._session.cluster, container, follow=follow, lines=lines):
            yield line

    async def version(self) -> str:
        """The version in the pod."""
        return await self._session.ask(lambda remote: remote.version())

    async def _ask(self, *arguments: str) -> Document:
        return await self._session.ask(lambda remote: remote.call_json(*arguments))


def _parsed(reference: Reference | str) -> Reference:
    """Return what a caller means; InvalidReference when it is none."""
    return Reference.parse(reference) if isinstance(reference, str) else reference

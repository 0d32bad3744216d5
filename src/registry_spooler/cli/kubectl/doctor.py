"""`doctor`: what is wrong, in one screen, within a quarter of a minute.

The first checks need one another, and the first that fails is the one to fix; those behind them run side by side. They
try the very things that the other commands do, so a permission that is there by another way is not missed. Each
finding is printed as it comes, and a check that gets no answer in time says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import click

from registry_spooler.aio import task_group
from registry_spooler.cli.kubectl.spooler_commands import troubles
from registry_spooler.cli.kubectl.target import ClusterTarget, json_option, target_options
from registry_spooler.cli.printing import say, say_json
from registry_spooler.cli.process import ExitCode, run
from registry_spooler.errors import SpoolerError
from registry_spooler.kubernetes.cluster_errors import RemoteError
from registry_spooler.kubernetes.wire import Document
from registry_spooler.oci.reference import Reference
from registry_spooler.text import count_text
from registry_spooler.version import __version__

if TYPE_CHECKING:
    from registry_spooler.client import SpoolerClient


PULL_SECONDS: Final = 75.0
DOCTOR_SECONDS: Final = 13.0
"""For all that is asked of the cluster; a login may take longer, since it may ask the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found. A note is worth knowing and no trouble."""

    check: str
    ok: bool
    said: str
    is_note: bool = False

    @property
    def line(self) -> str:
        """For people."""
        state = "note" if self.is_note else "ok" if self.ok else "TROUBLE"
        return f"{state:<7}  {self.check}: {self.said}"

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {"check": self.check, "ok": self.ok, "said": self.said}


@click.command()
@click.option("--pull", is_flag=True, help="Also start a pod from a pushed image on every node.")
@click.option("--pull-image", metavar="REPOSITORY[:TAG]", help="With --pull: which image (default: the first).")
@json_option
@target_options
@click.pass_context
def doctor(context: click.Context, target: ClusterTarget, pull: bool, pull_image: str | None, as_json: bool) -> None:
    """Check login, permissions, pod, container, versions, spooler and registry.

    Done within 15 seconds after the login, but for --pull, which takes a minute at most and needs the rights to list
    nodes and to create, get and delete pods. The exit code is 1 when there is trouble; files that failed are none.
    """
    findings: list[Finding] = []

    def report(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            say(finding.line)

    run(_Examination(target, report, pulls=pull or pull_image is not None, image=pull_image).run)
    if as_json:
        say_json([finding.to_json() for finding in findings])
    if not all(finding.ok for finding in findings):
        context.exit(ExitCode.FAILED)


Look = Callable[["SpoolerClient"], Awaitable[list[Finding]]]


@dataclass(slots=True)
class _Examination:
    target: ClusterTarget
    report: Callable[[Finding], None]
    pulls: bool = False
    image: str | None = None
    _last_error: SpoolerError | None = None
    """Why something has to be tried again, until there is no time left."""
    _deadline: float = float("inf")

    async def run(self) -> None:
        """Report all that is found, up to the first trouble that makes the rest pointless."""
        try:
            async with self.target.connect(on_retry=self._note_error) as client:
                self.report(_ok("login", f"{client.server}, namespace {client.namespace}"))
                self._deadline = anyio.current_time() + DOCTOR_SECONDS
                has_pods = await self._look("pods", _look_for_pods, client)
                if has_pods and await self._look("exec", _look_into_pod, client):
                    async with task_group() as tasks:
                        tasks.start_soon(self._look, "spooler", _look_at_spooler, client)
                        tasks.start_soon(self._look, "registry", _look_at_registry, client)
                        tasks.start_soon(self._look, "logs", _look_at_logs, client)
                    if self.pulls:
                        self._deadline = anyio.current_time() + PULL_SECONDS
                        await self._look("nodes", partial(_look_at_nodes, image=self.image), client)
        except SpoolerError as exc:
            self.report(_trouble("login", str(exc)))

    async def _look(self, check: str, look: Look, client: SpoolerClient) -> bool:
        """Report what one look found; whether it is worth going on."""
        self._last_error = None
        found = await self._in_time(check, look, client)
        for finding in found:
            self.report(finding)
        return found[0].ok

    async def _in_time(self, check: str, look: Look, client: SpoolerClient) -> list[Finding]:
        try:
            with anyio.CancelScope(deadline=self._deadline):
                return await look(client)
        except SpoolerError as exc:
            return [_trouble(check, str(exc))]
        reason = str(self._last_error) if self._last_error else f"no answer within {DOCTOR_SECONDS:.0f} seconds"
        return [_trouble(check, f"{reason}{_NEXT_STEPS[check]}")]

    def _note_error(self, error: SpoolerError) -> None:
        self._last_error = error


_NEXT_STEPS: Final = {
    "pods": "; try `kubectl get pods`",
    "exec": "; try `kubectl exec`, and look at the pod with `kubectl describe pod`",
    "spooler": "; see `kubectl spool logs`",
    "registry": "; see the log of the registry's container with `kubectl logs`",
    "logs": "; try `kubectl logs`",
    "nodes": "; see `kubectl get pods`",
}


async def _look_for_pods(client: SpoolerClient) -> list[Finding]:
    return [_ok("pods", ", ".join(await client.pods()))]


async def _look_into_pod(client: SpoolerClient) -> list[Finding]:
    ours, theirs = __version__, await client.version()
    finding = _ok("exec", "commands run in the pod")
    if ours == theirs:
        return [finding, _ok("versions", f"{ours} here and in the pod")]
    return [finding, _trouble("versions", f"{ours} here, {theirs} in the pod; update the older one")]


async def _look_at_spooler(client: SpoolerClient) -> list[Finding]:
    document = (await client.status()).document
    status = Document(document, "status")
    found, waiting = troubles(document), status["queue"]["depth"].count()
    count = status["spool"]["failed_files"].count()
    spooler = (
        _trouble("spooler", f"{'; '.join(found)}; see `kubectl spool status` and `kubectl spool logs`")
        if found
        else _ok("spooler", f"ready, {count_text(waiting, 'file')} in its queue")
    )
    if not count:
        return [spooler, _ok("failed files", "none")]
    return [spooler, _note("failed files", f"{count}; `kubectl spool failed` lists them with their reasons")]


async def _look_at_registry(client: SpoolerClient) -> list[Finding]:
    try:
        repositories = await client.repositories(tries=1)
    except RemoteError as exc:
        if exc.exit_code != ExitCode.NOT_ALLOWED:
            raise
        # A login that is wrong altogether is trouble of the spooler's, whose own checks tell it.
        return [_note("registry", f"it does not let the spooler's login list its repositories: {exc}")]
    return [_ok("registry", count_text(len(repositories), "repository", "repositories"))]


async def _look_at_logs(client: SpoolerClient) -> list[Finding]:
    async for _ in client.logs(lines=1):
        break
    return [_ok("logs", "can be read")]


async def _look_at_nodes(client: SpoolerClient, image: str | None) -> list[Finding]:
    status = await client.status()
    if not status.pull_host:
        return [_trouble("nodes", "the spooler has not been told where nodes pull from (--pull-host)")]
    images = [Reference.parse(image)] if image is not None else await client.images()
    if not images:
        return [_trouble("nodes", "the registry holds no image to try; push one first")]
    described = await client.inspect(images[0])
    reference = f"{status.pull_host}/{images[0]}@{described.digest}"
    troubles_found = await client.pull_troubles(reference)
    if not troubles_found:
        return [_trouble("nodes", "the cluster has none")]
    return [
        _trouble(f"node {node}", f"cannot get {reference}: {reason}") if reason else _ok(f"node {node}", reference)
        for node, reason in troubles_found.items()
    ]


def _ok(check: str, said: str) -> Finding:
    return Finding(check=check, ok=True, said=said)


def _note(check: str, said: str) -> Finding:
    return Finding(check=check, ok=True, said=said, is_note=True)


def _trouble(check: str, said: str) -> Finding:
    return Finding(check=check, ok=False, said=said)

"""`doctor`: what is wrong, in one screen.

Each check needs the one before it, so the first that fails is the one to mend. They try the very things that the other
commands do; a permission that is there by another way is not missed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import click

from registry_spooler.errors import SpoolerError
from registry_spooler.kubectl.output import say, say_json
from registry_spooler.kubectl.pushing import json_option
from registry_spooler.kubectl.target import Target, run, target_options
from registry_spooler.kubectl.view import troubles

if TYPE_CHECKING:
    from registry_spooler.client import SpoolerClient


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    ok: bool
    said: str


@click.command()
@json_option
@target_options
@click.pass_context
def doctor(context: click.Context, target: Target, as_json: bool) -> None:
    """Say what is wrong: login, permissions, pod, container, versions, spooler, registry."""

    async def work() -> list[Finding]:
        return [finding async for finding in examine(target)]

    findings = run(work)
    if as_json:
        say_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            say(f"{'ok     ' if finding.ok else 'TROUBLE'}  {finding.check}: {finding.said}")
    context.exit(0 if all(finding.ok for finding in findings) else 1)


async def examine(target: Target) -> AsyncIterator[Finding]:
    """All checks, up to the first that makes the rest pointless."""
    at = "login"
    try:
        async with target.connect() as client:
            yield Finding(at, True, f"{client.server}, namespace {client.namespace}")
            at = "pods"
            yield Finding(at, True, ", ".join(await client.pods()))
            at = "exec"
            theirs = await client.version()
            yield Finding(at, True, "commands run in the pod")
            yield _versions(version("registry-spooler"), theirs)
            async for finding in _examine_spooler(client):
                yield finding
    except SpoolerError as exc:
        yield Finding(at, False, str(exc))


def _versions(ours: str, theirs: str) -> Finding:
    if ours == theirs:
        return Finding("versions", True, f"{ours} here and in the pod")
    return Finding("versions", False, f"{ours} here, {theirs} in the pod; update the older one")


async def _examine_spooler(client: SpoolerClient) -> AsyncIterator[Finding]:
    """What can be wrong in the pod: each of these is worth knowing, whatever the others found."""
    try:
        document = await client.status()
        found = troubles(document)
        said = "; ".join(found) or f"ready, {document['queue']['depth']} files in its queue"
        yield Finding("spooler", not found, said)
        count = document["spool"]["failed_files"]
        yield Finding("failed files", not count, f"{count}; `kubectl spool failed` lists them" if count else "none")
    except SpoolerError as exc:
        yield Finding("spooler", False, str(exc))
    try:
        yield Finding("registry", True, f"{len(await client.list())} repositories")
    except SpoolerError as exc:
        yield Finding("registry", False, str(exc))
    try:
        async for _ in client.logs(lines=1):
            break
        yield Finding("logs", True, "can be read")
    except SpoolerError as exc:
        yield Finding("logs", False, str(exc))

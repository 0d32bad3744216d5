"""Compares what is there in the end with what the model allows; every complaint is one line."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from chaos.faults import is_odd
from chaos.model import Model
from chaos.payloads import Reference, Shown
from chaos.world import World
from support.registries.verify import Image, Reader

MANIFEST = re.compile(r"^/v2/(?P<repository>.+)/manifests/(?P<tag>[^/]+)$")
NOT_THE_FILES = re.compile(r"the registry|127\.0\.0\.1|answered")
KILLED = re.compile(r"the spooler was killed \d+ times")
LEFT_ON_PURPOSE = re.compile(r"\.births|\.bundle|\.reserve|died\..*")
"""In `.work`: what every spooler shares, room for the day the disk is full, and who died over what."""
DEATHS_MIN = 4
"""Of spoolers, before one of them may be laid to a file."""
NOT_FORESEEN = re.compile(r"Traceback|internal error")


def complaints(world: World, model: Model, outside: str, outside_now: str) -> list[str]:
    """What is wrong; nothing when all is well. To be asked when the spoolers have stopped and the registry runs."""
    found = list(world.broken)
    _excuse(world, model)
    found += _images(world, model)
    found += _failed(world, model)
    found += _receipts(world, model)
    found += _order(world, model)
    found += _left_behind(world)
    found += [f"the log says: {line}" for log in world.logs for line in log.splitlines() if NOT_FORESEEN.search(line)]
    if outside != outside_now:
        found.append("something outside the spool was touched")
    return found


def _excuse(world: World, model: Model) -> None:
    """A file over which a spooler was killed again and again may have been given up for it."""
    folder = world.spool.folder / ".failed"
    for content in model.contents:
        record = _json(folder / f"{content.name}.error.json") or {}
        if world.deaths >= DEATHS_MIN and KILLED.search(str(record.get("error"))):
            content.certain, content.payload = False, replace(content.payload, is_good=False)


def _images(world: World, model: Model) -> Iterator[str]:
    """Every tag shows what it may show, and every blob behind it is whole."""
    reader = Reader(world.registry)
    for reference in sorted(model.references()):
        shown, allowed = show(reader, reference), model.may_show(reference)
        if shown not in allowed:
            arrivals = [content for content in model.contents if reference in content.payload.shows]
            what = next((content.name for content in arrivals if content.payload.shows[reference] == shown), shown)
            wanted = [
                (content.order, content.name, "certain" if content.certain else "uncertain") for content in arrivals
            ]
            yield f"{':'.join(reference)} shows {what}, {shown}, of {wanted}"


def show(reader: Reader, reference: Reference) -> Shown | None:
    """What a tag shows, each byte of it read; None when there is no such tag."""
    repository, tag = reference
    if tag not in reader.tags(repository) or not reader.has(repository, tag):
        return None
    image = reader.image(repository, tag)
    return tuple(_diff_ids(each) for each in image.children or (image,))


def _diff_ids(image: Image) -> tuple[str, ...]:
    return image.diff_ids


def _failed(world: World, model: Model) -> Iterator[str]:
    """What has failed is bad and whole, with a reason; what is bad has failed."""
    folder = world.spool.folder / ".failed"
    files = {name: (folder / name).read_bytes() for name in os.listdir(folder) if not name.endswith(".error.json")}
    bad = {content.payload.content for content in model.failing(certain=False)}
    known = {content.payload.content: content.name for content in model.contents if content.payload.content}
    for name, content in sorted(files.items()):
        record = _json(folder / f"{name}.error.json")
        if record is None:
            yield f"{name} is in .failed without a reason"
        elif content not in bad:
            what = known.get(content, f"an unknown content of {len(content)} bytes")
            yield f"{name} is in .failed with {what}: {record['error']}"
        elif NOT_THE_FILES.search(record["error"]):
            yield f"{name} is in .failed for what is not its fault: {record['error']}"
    for each in model.failing(certain=True):
        if each.payload.content not in files.values():
            yield f"{each.name} is bad ({len(each.payload.content)} bytes), and not in .failed"


def _receipts(world: World, model: Model) -> Iterator[str]:
    """What was done last under a name has a receipt, and no receipt tells of what is not there."""
    reader, deleted = Reader(world.registry), _deleted(model)
    for path in sorted((world.spool.folder / ".receipts").iterdir()):
        receipt = _json(path)
        if receipt is None:
            yield f"{path.name} is no receipt"
            continue
        for image in receipt.get("images", [receipt]):
            repository = str(image["reference"]).rpartition(":")[0]
            if (
                image["action"] == "push"
                and repository not in deleted
                and not _has(reader, repository, image["digest"])
            ):
                yield f"{path.name} tells of {image['digest']} in {repository}, which is not there"
    last = {content.name: content for content in model.contents}
    for name, content in sorted(last.items()):
        if content.payload.is_good and content.certain and not (world.spool.folder / f".receipts/{name}.json").exists():
            yield f"{name} is gone without a receipt"


def _deleted(model: Model) -> set[str]:
    """The repositories in which something may have been deleted."""
    shows = (item for content in model.contents for item in content.payload.shows.items())
    return {repository for (repository, _), shown in shows if shown is None}


def _has(reader: Reader, repository: str, digest: str) -> bool:
    try:
        return reader.has(repository, digest)
    except HTTPError:
        return False


def _order(world: World, model: Model) -> Iterator[str]:
    """In one repository, the tag of what came first was pushed for the last time before that of what came next."""
    puts: dict[Reference, list[int]] = {}
    for at, seen in enumerate(world.proxy.seen):
        if seen.method == "PUT" and (match := MANIFEST.match(seen.target)):
            puts.setdefault((match["repository"], match["tag"]), []).append(at)
    for earlier, later in itertools.combinations(model.in_order(), 2):
        (first,), (second,) = earlier.payload.shows, later.payload.shows
        if first[0] == second[0] and first in puts and second in puts and puts[first][-1] > puts[second][0]:
            yield f"{later.name} was pushed before {earlier.name}, which had arrived earlier"


def _left_behind(world: World) -> Iterator[str]:
    """Nothing waits, nothing temporary stays, and no upload was forgotten where nobody died or was cut off."""
    folder = world.spool.folder
    yield from (f"{name} still waits" for name in sorted(os.listdir(folder)) if not _may_stay(folder / name))
    for name in (".work", ".locks"):
        paths = (path for path in (folder / name).rglob("*") if not LEFT_ON_PURPOSE.fullmatch(path.name))
        left = sorted(str(path.relative_to(folder)) for path in paths)
        if left:
            yield f"left behind: {', '.join(left)}"
    # docker-registry answers 404 for a session whose PATCH was cut off, and may write a hash state after a deletion.
    given_up = " ".join(seen.target for seen in world.proxy.seen if seen.method == "DELETE")
    found = world.registry.storage.glob("docker/registry/v2/repositories/**/_uploads/*")
    uploads = [path for path in found if path.name not in given_up]
    if uploads and not world.deaths and not world.disturbed:
        yield f"{len(uploads)} uploads were left at the registry"


def _may_stay(path: Path) -> bool:
    return path.name.startswith(".") or is_odd(str(path))


def _json(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None

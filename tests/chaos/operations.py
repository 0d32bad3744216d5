"""What users do with files in the spool. Each tells the model what it did, and gives a line for the round's log."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from chaos.model import Content, Model
from chaos.payloads import Factory, Payload, half
from chaos.world import SETTLE_SECONDS, STRANGER, World

TICK_SECONDS = 0.012
"""Longer than the kernel's clock for file times stands still: arrivals have times of their own."""
UNSEEN_SECONDS = 0.08
"""Who writes unseen, and takes longer from opening to closing, may lose to the removal of the file."""


@dataclass(slots=True)
class SlowWriter:
    """Somebody who has a file open, has written half of it, and takes a break."""

    payload: Payload
    fd: int
    since: float


@dataclass(frozen=True, slots=True)
class Users:
    """All who use the spool."""

    world: World
    model: Model
    factory: Factory
    chance: random.Random
    slow: list[SlowWriter] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)

    def act(self) -> str:
        """Do something."""
        acts: dict[Callable[[], str], int] = {
            self.drop: 8,
            self.replace: 3,
            self.delete_tag: 2,
            self.append: 2,
            self.retry: 2,
            self.remove: 1,
            self.grow: 1,
            self.change_mode: 1,
            self.put_odd: 1,
        }
        time.sleep(TICK_SECONDS)
        act = self.chance.choices(list(acts), list(acts.values()))[0]
        try:
            return f"{act.__name__}: {act()}"
        except OSError as exc:
            if exc.errno not in {errno.ENOSPC, errno.EROFS, errno.ELOOP}:
                raise
            return f"{act.__name__}: {exc.strerror}"

    def drop(self) -> str:
        """A new file, by any way."""
        return self._put(self.factory.any())

    def delete_tag(self) -> str:
        """A wish to delete."""
        return self._put(self.factory.deletion())

    def replace(self) -> str:
        """Another content under a name that there is."""
        old = self._one(lambda content: content.payload.is_good and len(content.payload.shows) == 1)
        if old is None or None in old.payload.shows.values():
            return self.drop()
        return self._put(self.factory.like(old.name, old.payload.shows))

    def append(self) -> str:
        """More bytes for a file that is no archive, if it is still there."""
        old = self._one(lambda content: self.factory.is_raw(content.payload))
        if old is None:
            return "nothing to append to"
        more = self.factory.raw(next(iter(old.payload.shows)), old.name).content
        return self._extend(old, self.factory.longer(old.payload, more))

    def grow(self) -> str:
        """Half an archive, and the rest of it a little later, if the file is still there."""
        whole = self.factory.image()
        self._write(Payload(name=whole.name, content=half(whole.content), is_good=False), in_place=True)
        content = self.model.last(whole.name)
        assert content is not None
        time.sleep(self.chance.uniform(0, SETTLE_SECONDS))
        return self._extend(content, whole)

    def write_slowly(self) -> str:
        """Open a file and write half of it; or go on with the other half and close it."""
        if self.slow:
            return self._write_rest(self.slow.pop(0))
        payload = self.factory.slow()
        fd = os.open(self._path(payload.name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._own(self._path(payload.name))
        try:
            self._write_pieces(fd, payload.content[: len(payload.content) // 2])
        except OSError:
            self._path(payload.name).unlink()
            os.close(fd)
            raise
        self.slow.append(SlowWriter(payload, fd, time.monotonic()))
        return f"{payload.name} half"

    def finish(self) -> None:
        """All close what they have open, and remove the other names of what they have linked."""
        for other in self.links:
            other.unlink()
        while self.slow:
            self._write_rest(self.slow.pop(0))

    def _write_rest(self, writer: SlowWriter) -> str:
        """In a blind round a break longer than the spooler waits may cost the file; else nothing may be lost."""
        payload = writer.payload
        try:
            self._write_pieces(writer.fd, payload.content[len(payload.content) // 2 :])
            is_lost = not os.fstat(writer.fd).st_nlink
        except OSError:
            self._path(payload.name).unlink()
            return f"{payload.name} is given up"
        finally:
            os.close(writer.fd)
        seconds = time.monotonic() - writer.since
        if is_lost and not (self.world.blind and seconds > SETTLE_SECONDS):
            self.world.broken.append(f"{payload.name} was taken away while it was being written")
        if not is_lost:
            self.model.arrive(payload, renamed=False)
        return f"{payload.name} after {seconds:.3f} s"

    def remove(self) -> str:
        """Take a file back."""
        old = self._one(lambda _: True)
        if old is None or not self._is_there(old.name):
            return "nothing to remove"
        self.model.doubt(old.name)
        self._path(old.name).unlink(missing_ok=True)
        return old.name

    def retry(self) -> str:
        """Move a failed file back into the spool."""
        names = sorted(os.listdir(self.world.spool.folder / ".failed"))
        failed = [content for content in self.model.failing(certain=False) if content.name in names]
        if not failed:
            return "nothing has failed"
        name = self.chance.choice(failed).name
        path = self.world.spool.folder / ".failed" / name
        held = path.read_bytes()
        content = next((content for content in failed if content.payload.content == held), None)
        if content is None or self._is_there(name):
            return f"{name} is taken, or holds what should not have failed"
        path.rename(self._path(name))
        content.certain = False
        self.model.arrive(content.payload, renamed=True)
        return name

    def change_mode(self) -> str:
        """A change that is no arrival."""
        old = self._one(lambda _: True)
        if old is None or not self._is_there(old.name):
            return "nothing to change"
        old.blurred = True
        try:
            self._path(old.name).chmod(self.chance.choice((0o600, 0o640, 0o444)))
        except FileNotFoundError:
            return f"{old.name} was gone"
        return old.name

    def link(self) -> str:
        """A file that has another name elsewhere, for as long as the round goes on: it is to wait for that."""
        payload = self.factory.slow()
        other = self.world.staging / f"other-{payload.name}"
        try:
            other.write_bytes(payload.content)
            self._own(other)
            os.link(other, self._path(payload.name))
        except OSError:
            other.unlink(missing_ok=True)
            raise
        self.links.append(other)
        self.model.arrive(payload, renamed=False)
        return payload.name

    def put_odd(self) -> str:
        """Something that is not to be opened, pushed or followed."""
        folder, number = self.world.spool.folder, self.chance.randrange(1000)
        match self.chance.randrange(4):
            case 0:
                (folder / f"half-{number}.tar~").write_bytes(b"being written")
            case 1:
                (folder / f"link:{number}.tar").symlink_to(self.world.outside / "secret.tar")
            case 2:
                os.mkfifo(folder / f"fifo:{number}.tar")
            case _:
                (folder / f"folder:{number}.tar").mkdir(exist_ok=True)
        return str(number)

    def _put(self, payload: Payload) -> str:
        in_place = payload.name.endswith("!") or self.chance.random() < 0.3
        self._write(payload, in_place=in_place)
        return f"{payload.name} ({len(payload.content)} bytes) {'in place' if in_place else 'renamed'}"

    def _write(self, payload: Payload, *, in_place: bool) -> None:
        path, there = self._path(payload.name), self._is_there(payload.name)
        if in_place:
            self.model.doubt(payload.name) if there else None
            with path.open("wb", buffering=0) as file:
                self._own(path)
                try:
                    self._write_pieces(file.fileno(), payload.content)
                except OSError:
                    path.unlink()  # while it is open, so that nobody takes it for complete
                    raise
        else:
            writing = self.chance.choice((self.world.staging / payload.name, path.with_name(f"{payload.name}~")))
            try:
                writing.write_bytes(payload.content)
                self._own(writing)
                self.model.doubt(payload.name) if self._is_there(payload.name) else None
                writing.rename(path)
            except OSError:
                writing.unlink(missing_ok=True)
                raise
        self.model.arrive(payload, renamed=not in_place)

    def _write_pieces(self, fd: int, content: bytes) -> None:
        pieces = self.chance.choice((1, 1, 3))
        size = len(content) // pieces + 1
        for at in range(0, len(content), size):
            left = content[at : at + size]
            while left:
                left = left[os.write(fd, left) :]
            time.sleep(0.005 * (pieces > 1))

    def _extend(self, old: Content, longer: Payload) -> str:
        """Append what makes the old content the longer one, unless the spooler was faster."""
        began = time.monotonic()
        try:
            fd = os.open(self._path(old.name), os.O_WRONLY | os.O_APPEND)
        except FileNotFoundError:
            return f"{old.name} was gone"
        try:
            self.model.doubt(old.name)
            arrived = self.model.arrive(self._written(fd, old.payload, longer), renamed=False)
            if self.world.blind and not os.fstat(fd).st_nlink:
                self._was_removed(arrived, time.monotonic() - began)
        finally:
            os.close(fd)
        return f"{old.name} to {len(longer.content)} bytes"

    def _written(self, fd: int, old: Payload, longer: Payload) -> Payload:
        """What the file holds after the attempt to make it longer: there may be no room."""
        try:
            self._write_pieces(fd, longer.content[len(old.content) :])
        except OSError:
            os.ftruncate(fd, len(old.content))
            return old
        return longer

    def _was_removed(self, arrived: Content, seconds: float) -> None:
        if seconds < UNSEEN_SECONDS:
            self.world.broken.append(f"{arrived.name} was removed while it was appended to")
        arrived.certain = False

    def _one(self, fits: Callable[[Content], bool]) -> Content | None:
        """One of those that stand last under their names, the newest ones first."""
        last = {content.name: content for content in self.model.contents}
        found = [content for content in last.values() if fits(content)][-6:]
        return self.chance.choice(found) if found else None

    def _own(self, path: Path) -> None:
        if self.world.blind:
            os.chown(path, STRANGER, STRANGER)

    def _is_there(self, name: str) -> bool:
        return os.path.lexists(self._path(name))

    def _path(self, name: str) -> Path:
        return self.world.spool.folder / name

"""Images by the names that a container engine on this machine knows them by."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO, Final

from registry_spooler.aio import in_thread
from registry_spooler.errors import SpoolerError
from registry_spooler.oci.reference import ImageName, Reference
from registry_spooler.spool.filename import archive_suffix
from registry_spooler.text import quoted

ENGINES: Final = ("docker", "podman", "nerdctl")
_LOOK_SECONDS: Final = 20.0
_COPY_BYTES: Final = 1 << 20


class EngineError(SpoolerError):
    """An engine is not here, does not know the image, or cannot save it."""

    reason: str
    sentence = "{reason}"


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: S603 - no shell reads it


def _image_id(engine: str, name: str) -> str:
    """Return the ID of an engine's image, or an empty text if it has none. EngineError if it does not answer."""
    command = [engine, "image", "inspect", name, "--format", "{{.Id}}"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_LOOK_SECONDS, check=False)  # noqa: S603 - no shell
    except subprocess.TimeoutExpired as exc:
        raise EngineError(f"{engine} has not answered for {_LOOK_SECONDS:.0f} seconds") from exc
    return done.stdout.decode(errors="replace").strip() or "unknown" if done.returncode == 0 else ""


def _copied(pipe: IO[bytes]) -> IO[bytes]:
    """Return a temporary file with all that a pipe has, to be read from its start."""
    file = tempfile.TemporaryFile(prefix="kubectl-spool-")  # noqa: SIM115 - the caller closes it
    try:
        shutil.copyfileobj(pipe, file, _COPY_BYTES)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


@dataclass(frozen=True, slots=True)
class EngineImage:
    """An image of an engine; `engine` is empty where the user named none."""

    engine: str
    name: str

    @classmethod
    def parse(cls, word: str) -> EngineImage | None:
        """Return the image that an argument means, or None if the argument is a file.

        It is an image if it begins with an engine's name and a colon, or if it has a tag or a digest and does not end
        like an archive; `./` before it makes it a file.
        """
        engine, colon, name = word.partition(":")
        if colon and engine in ENGINES and name:
            return cls(engine, name)
        if word.startswith((".", "/", "~")) or "\\" in word or archive_suffix(word):
            return None
        last = word.rpartition("/")[2]
        return cls("", word) if ":" in last or "@" in last else None

    @property
    def reference(self) -> Reference:
        """Where the image goes if nobody says otherwise: its name without the registry's host."""
        return ImageName.parse(self.name).reference

    def identity(self) -> str | None:
        """Return the image's ID and the engine that has it, or None if no engine has it now. Blocks."""
        try:
            engine = self._find()
            return f"{engine}:{_image_id(engine, self.name)}"
        except EngineError:
            return None

    @asynccontextmanager
    async def saved(self) -> AsyncGenerator[IO[bytes]]:
        """Read the image as an archive, as the engine writes it. EngineError when it cannot, on the way out too.

        Docker and podman write plain layers, and only at the archive's end what these are. They go through a temporary
        file, so that they are looked for, and compared with those of the image before, first. nerdctl's are compressed
        already, and come through a pipe.
        """
        engine = await in_thread(self._find)
        async with self._pipe(engine) as pipe:
            if engine == "nerdctl":
                yield pipe
                return
            with await in_thread(_copied, pipe) as file:
                yield file

    @asynccontextmanager
    async def _pipe(self, engine: str) -> AsyncGenerator[IO[bytes]]:
        process = await in_thread(_start, [engine, "save", self.name])
        assert process.stdout is not None and process.stderr is not None
        with process.stdout as archive, process.stderr as complaints:
            try:
                yield archive
            except BaseException:
                process.kill()
                complaint = await in_thread(complaints.read)
                if await in_thread(process.wait) > 0:
                    raise self._refusal(engine, complaint) from None
                raise
            complaint = await in_thread(complaints.read)
            if await in_thread(process.wait):
                raise self._refusal(engine, complaint)

    def _refusal(self, engine: str, complaint: bytes) -> EngineError:
        reason = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        return EngineError(f"{engine} cannot save {quoted(self.name)}: {reason}")

    def _find(self) -> str:
        """Return the engine that has the image."""
        engines = [self.engine] if self.engine else [engine for engine in ENGINES if shutil.which(engine)]
        if not engines or not shutil.which(engines[0]):
            missing = f"{self.engine} is not" if self.engine else "none of docker, podman and nerdctl is"
            raise EngineError(f"{quoted(self.name)} is the name of an image, but {missing} on the PATH")
        for engine in engines:
            if _image_id(engine, self.name):
                return engine
        raise EngineError(
            f"{' and '.join(engines)} {'has' if len(engines) == 1 else 'have'} no image {quoted(self.name)}; "
            f"to push a file of that name, write ./{self.name}"
        )

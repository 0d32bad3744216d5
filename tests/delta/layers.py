"""Layers for deltas: tars by chance, pieces of any size, and both sides of a delta in one call."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from registry_spooler.delta.rebuild import rebuild
from registry_spooler.delta.recipe import Recipe, RecipeWriter
from registry_spooler.delta.signature import Signature, signature_of

BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine may take its time."""
COMPILED = b"\xa7\r\r\n\0\0\0\0" + bytes(8)


@dataclass(frozen=True)
class File:
    """One member, as its name and its TarInfo's fields."""

    name: str
    content: bytes = b""
    time: float = 0
    fields: dict[str, Any] = field(default_factory=dict)

    def at(self, time: float) -> File:
        return replace(self, time=time)


def tar(files: list[File], style: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar of these members; what a style cannot say is left out of it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=style, errors="surrogateescape") as archive:
        for file in files:
            info = tarfile.TarInfo(file.name)
            info.size, info.mtime = len(file.content), file.time
            for name, value in file.fields.items():
                setattr(info, name, value)
            archive.addfile(info, io.BytesIO(file.content))
    return out.getvalue()


def compiled(time: int, code: bytes) -> bytes:
    """Compiled Python, as `py_compile` writes it."""
    return COMPILED[:8] + time.to_bytes(4, "little") + len(code).to_bytes(4, "little") + code


def in_pieces(content: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


def recipe_of(base: bytes, layer: bytes, piece_bytes: int = 4096) -> Recipe | None:
    """What the sender makes of a layer when it is told the base's signature."""
    return recipe_by(Signature.decode(signature_of(in_pieces(base, piece_bytes)).encode()), layer, piece_bytes)


def recipe_by(signature: Signature, layer: bytes, piece_bytes: int = 4096) -> Recipe | None:
    writer = RecipeWriter(signature, io.BytesIO())
    for piece in in_pieces(layer, piece_bytes):
        writer.feed(piece)
    return writer.finish(io.BytesIO())


def written(recipe: Recipe) -> bytes:
    content = b"".join(recipe.pieces())
    assert len(content) == recipe.size
    return content


def rebuilt(recipe: bytes, base: bytes, piece_bytes: int = 4096, **limits: int) -> bytes:
    """What the far end makes of a recipe."""
    return b"".join(rebuild(io.BytesIO(recipe), lambda: in_pieces(base, piece_bytes), io.BytesIO(), **limits))


NAMES = st.sampled_from(
    [*(f"lib/module_{number}.py" for number in range(12)), "d" * 99, "long/" * 40 + "name", "umlaut/ä", "etc/passwd"]
)
SIZES = st.sampled_from([0, 1, 15, 16, 100, 511, 512, 513, 1024, 3000, 9000])
TIMES = st.sampled_from([0, 1, 1_700_000_000, 1_700_000_003, 8**11 - 1, 8**11 + 5])


@st.composite
def files(draw: st.DrawFn) -> File:
    """A regular file, plain or compiled Python; a link, a folder, a device."""
    size, letter, time = draw(SIZES), draw(st.sampled_from(b"abc")), draw(TIMES)
    content = bytes([letter]) * size
    match draw(st.integers(0, 9)):
        case 0:
            return File(draw(NAMES), b"", time, {"type": tarfile.SYMTYPE, "linkname": draw(NAMES)})
        case 1:
            return File(draw(NAMES), b"", time, {"type": tarfile.LNKTYPE, "linkname": draw(NAMES)})
        case 2:
            return File(draw(NAMES), b"", time, {"type": draw(st.sampled_from([tarfile.DIRTYPE, tarfile.CHRTYPE]))})
        case 3 | 4:
            return File(draw(NAMES), compiled(time % (1 << 32), content), time)
        case 5:
            return File(draw(NAMES), content, time, {"mode": 0o755, "uid": 1000, "uname": "user"})
        case _:
            return File(draw(NAMES), content, time)


class Pair:
    """Two layers, of which only the sizes are worth printing."""

    def __init__(self, base: bytes, layer: bytes) -> None:
        self.base = base
        self.layer = layer

    def __repr__(self) -> str:
        return f"Pair({len(self.base)} bytes, {len(self.layer)} bytes)"


@st.composite
def layer_pairs(draw: st.DrawFn) -> Pair:
    """A base, and a layer that was made from it, or from nothing that is in it."""
    members = draw(st.lists(files(), max_size=12))
    match draw(st.integers(0, 4)):
        case 0:
            others = draw(st.lists(files(), max_size=12))
        case 1:
            others = draw(st.permutations(members))
        case _:
            others = draw(_rebuilt_with_changes(members))
    style = st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    base_style = draw(style)
    layer_style = draw(style) if draw(st.booleans()) else base_style
    return Pair(draw(_damaged(tar(members, base_style))), draw(_damaged(tar(others, layer_style))))


@st.composite
def _rebuilt_with_changes(draw: st.DrawFn, members: list[File]) -> list[File]:
    time = draw(TIMES)
    others = [file.at(time) for file in members]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(others)))
        if draw(st.booleans()):
            others.insert(at, draw(files()))
        else:
            del others[at : at + draw(st.integers(1, 3))]
    return others + others[: draw(st.integers(0, 3))]


@st.composite
def _damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Mostly whole; cut off, with garbage in it or behind it, or twice over."""
    match draw(st.integers(0, 11)):
        case 0:
            return content[: draw(st.integers(0, len(content)))]
        case 1:
            return content + draw(st.binary(max_size=600))
        case 2:
            at = draw(st.integers(0, len(content)))
            return content[:at] + draw(st.binary(min_size=1, max_size=20)) + content[at + 3 :]
        case 3:
            return content.rstrip(b"\0") + content
        case 4:
            return draw(st.binary(max_size=2000))
        case _:
            return content

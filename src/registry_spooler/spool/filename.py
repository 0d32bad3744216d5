r"""Spool file names: what a file asks for, read from its name alone, and how names are shown.

`\` stands for `/`. In the last path component a tag may follow a colon, and then only a known archive
suffix is cut; without a tag the name ends at its first dot and the tag is `latest`. `%XX` stands for a
character that would otherwise have a meaning here. A name that ends in `!` asks to delete what the
same name without it would push. The way back, `spool_name`, gives a name that reads as the
reference it was made from.

A spool file may be called anything that the file system takes: bytes that are no UTF-8, control characters,
255 bytes of them. Inside the program a name is the `str` that `os.fsdecode` makes of it.
"""

from __future__ import annotations

import enum
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from registry_spooler.errors import InvalidFileName, InvalidReference
from registry_spooler.oci.reference import Reference
from registry_spooler.text import printable

ARCHIVE_SUFFIXES: Final = (
    ".tar.gz",
    ".tar.zst",
    ".tar.xz",
    ".tar.bz2",
    ".tar",
    ".tgz",
    ".tzst",
    ".txz",
    ".tbz2",
)
"""Longest first, so that `.tar.gz` is cut whole."""

_SUFFIXES: Final = f"{', '.join(ARCHIVE_SUFFIXES[:-1])} or {ARCHIVE_SUFFIXES[-1]}"
_UNKNOWN_SUFFIX: Final = re.compile(r"\.tar\.[a-z][a-z0-9]{0,7}", re.IGNORECASE)
"""An archive in a form that is not read here, or a file about one: neither should become a layer of a working tag."""

_NAME_MAX: Final = 255
"""Of every Linux file system, in bytes; a reference is ASCII."""
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Action(enum.Enum):
    """What a file asks for, as receipts spell it."""

    PUSH = "push"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class FileName:
    """A spool file's name, understood. `reference` is None for a bundle: its archive names the images."""

    name: str
    action: Action
    reference: Reference | None
    is_archive: bool
    """Has it a known archive suffix? If not, the file's bytes are themselves the layer."""

    @property
    def is_bundle(self) -> bool:
        """Return whether every image of the archive goes where the archive says."""
        return self.reference is None

    @classmethod
    def parse(cls, name: str) -> FileName:
        """Read a name that is not to be ignored; InvalidFileName says why it cannot be read."""
        action = Action.DELETE if name.endswith("!") else Action.PUSH
        stem = name.removesuffix("!")
        suffix = archive_suffix(stem)
        if unknown := _unknown_suffix(stem):
            raise InvalidFileName(name, f"'{unknown}' is no ending that can be read; use {_SUFFIXES}")
        if stem.startswith("@"):
            _check_bundle(name, action, suffix)
            return cls(name, action, None, True)
        return cls(name, action, _read_reference(name, stem, suffix), bool(suffix))


def is_ignored(name: str) -> bool:
    """Return whether the file is still being written (`…~`) or the spooler's own (`.…`)."""
    return name.endswith("~") or name.startswith(".")


def archive_suffix(name: str) -> str:
    """The known archive suffix that the name ends in, as written; empty when there is none."""
    lower = name.lower()
    return next((name[-len(suffix) :] for suffix in ARCHIVE_SUFFIXES if lower.endswith(suffix)), "")


def spool_name(reference: Reference, suffix: str = ".tar") -> str:
    """The file name that reads as `reference`, always with its tag.

    `suffix` is a known archive suffix or nothing, with or without the `!` of a deletion. InvalidReference when there is
    no tag, or when the name would be longer than a file's can be.
    """
    if reference.tag is None:
        raise InvalidReference(str(reference), "a spool file needs a tag")
    tag, ending = reference.tag, suffix.removesuffix("!")
    if not ending and (archive_suffix(tag) or _unknown_suffix(tag)):
        # The end of the tag would be taken for a suffix.
        tag = "%2E".join(tag.rsplit(".", 1))
    name = f"{reference.repository.replace('/', chr(92))}:{tag}{suffix}"
    if len(name) > _NAME_MAX:
        raise InvalidReference(str(reference), f"it is too long for a file name (at most {_NAME_MAX} characters)")
    return name


def published_name(file: str, wanted: str | None) -> str:
    r"""The spool file name for a file that is to be published under another one: `wanted` is a name, or REPO[:TAG].

    It gets the file's archive suffix where it has none, so that an archive stays one under any name. InvalidFileName or
    InvalidReference when it cannot be a name.
    """
    name, suffix = wanted or file, archive_suffix(file)
    if "/" in name:
        name = spool_name(Reference.parse(name), suffix)
    elif suffix and not archive_suffix(name) and not name.endswith("!"):
        name += suffix
    if is_ignored(name):
        raise InvalidFileName(name, "the spooler ignores what starts with '.' or ends with '~'")
    FileName.parse(name)
    return name


def _unknown_suffix(name: str) -> str:
    found = _UNKNOWN_SUFFIX.search(name)
    return found[0] if found and found.end() == len(name) and not archive_suffix(name) else ""


def _check_bundle(name: str, action: Action, suffix: str) -> None:
    if action is Action.DELETE:
        raise InvalidFileName(name, "a bundle cannot be deleted as one; delete its images by their names")
    if not suffix:
        raise InvalidFileName(name, f"a name that starts with '@' is a bundle and ends in {_SUFFIXES}")


def _read_reference(name: str, stem: str, suffix: str) -> Reference:
    if bad := _BAD_ESCAPE.search(stem):
        raise InvalidFileName(name, f"'%' at character {bad.start() + 1} is not followed by two hexadecimal digits")
    head, separator, last = stem.replace("\\", "/").rpartition("/")
    base, colon, tag = last.partition(":")
    if colon:
        tag = tag[: len(tag) - len(suffix)] if suffix else tag
    else:
        base, tag = base.partition(".")[0], "latest"
    try:
        return Reference(_unescape(head + separator + base), _unescape(tag))
    except InvalidReference as exc:
        # From None: the cause says the same of a part of the name, and a record's `detail` would repeat it.
        raise InvalidFileName(name, exc.reason) from None


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


NAME_MAX_BYTES: Final = 255
"""What every Linux file system takes; a longer name is cut, see `derived_name`."""

RECEIPT: Final = ".json"
ERROR: Final = ".error.json"


def display(name: str) -> str:
    """The name as people see it, in logs, on terminals and pages: no control, format or line-end characters."""
    return printable(name)


def derived_name(name: str, extension: str) -> str:
    """`name` + `extension`; where that is too long for a file name, the name is cut and marked with its own hash.

    The cut is made so that different names never get the same derived name: `START~HASH.error.json`.
    """
    raw, tail = _encode(name), _encode(extension)
    if len(raw) + len(tail) <= NAME_MAX_BYTES:
        return name + extension
    mark = f"~{hashlib.sha256(raw).hexdigest()[:20]}".encode()
    start = raw[: NAME_MAX_BYTES - len(mark) - len(tail)]
    # A character that the cut goes through is left out: the result of a clean name stays clean.
    while start and not _is_boundary(raw, len(start)):
        start = start[:-1]
    return (start + mark + tail).decode("utf-8", "surrogateescape")


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _is_boundary(raw: bytes, index: int) -> bool:
    return raw[index] & 0xC0 != 0x80

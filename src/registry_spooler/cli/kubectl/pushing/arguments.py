"""What the arguments of `push` mean: files, images of an engine, and the name that the image is to get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from registry_spooler.cli.kubectl.pushing.engines import EngineImage
from registry_spooler.oci.reference import ImageName, Reference, check_tag
from registry_spooler.spool.filename import FileName, archive_suffix
from registry_spooler.text import quoted

STDIN: Final = "-"


@dataclass(frozen=True, slots=True)
class Item:
    """One file and where its image goes; `reference` is None where the archive says."""

    file: str
    reference: Reference | None
    is_archive: bool | None
    """None: as its content says."""
    image: EngineImage | None = None
    """The image that `file` names, if it names one."""

    @property
    def title(self) -> str:
        """For people."""
        if self.image is not None:
            return f"{self.image.name} → {self.reference}"
        name = "standard input" if self.file == STDIN else Path(self.file).name
        return f"{name} → {self.reference}" if self.reference is not None else name


def read_items(arguments: tuple[str, ...]) -> tuple[Item, ...]:
    """The arguments, understood: of two, the second is a NAME where it does not say that it is a file."""
    if len(arguments) == 2:
        file, name = arguments
        if file != STDIN and EngineImage.parse(file) is None and not Path(file).exists() and Path(name).is_file():
            raise click.UsageError(f"there is no file {quoted(file)}; the FILE comes first: push {name} {file}")
        if not _says_file(name):
            return (_item(file, name),)
    last = arguments[-1]
    if len(arguments) > 1 and last != STDIN and EngineImage.parse(last) is None and not Path(last).exists():
        raise click.UsageError(f"there is no file {quoted(last)}; a NAME goes with a single FILE")
    return tuple(_item(file, None) for file in arguments)


def tagged_item(arguments: tuple[str, ...], names_in: Callable[[Path], list[str]]) -> Item:
    """The arguments of `--tag-only`: one file or image, and a tag for it in the repository that it names itself.

    `names_in` returns the names of an archive's images.
    """
    if len(arguments) != 2 or arguments[0] == STDIN:
        raise click.UsageError("--tag-only wants a FILE or an IMAGE, and the TAG: push app.tar v2 --tag-only")
    file, tag = arguments
    check_tag(tag)
    image = EngineImage.parse(file)
    if image is not None:
        return Item(file, Reference(image.reference.repository, tag), True, image)
    if not Path(file).exists():
        raise click.UsageError(f"there is no file {quoted(file)}")
    repositories = sorted({ImageName.parse(name).repository for name in names_in(Path(file))})
    if len(repositories) != 1:
        named = f"names several repositories ({', '.join(repositories)})" if repositories else "names no repository"
        raise click.UsageError(f"{quoted(file)} {named}, so that a tag alone does not say where it goes")
    return Item(file, Reference(repositories[0].removeprefix("library/"), tag), True)


def _says_file(text: str) -> bool:
    """Return whether an argument can only be meant as a file, not as the NAME for the one before it."""
    if text == STDIN or text.startswith(("./", "../", "/", "~")):
        return True
    return Path(text).is_file() and (bool(archive_suffix(text)) or "\\" in text)


def _item(file: str, name: str | None) -> Item:
    image = EngineImage.parse(file)
    if image is not None:
        return Item(file, _named(name) if name is not None else image.reference, True, image)
    if file != STDIN and not Path(file).exists():
        raise click.UsageError(f"there is no file {quoted(file)}")
    is_archive = True if file == STDIN or archive_suffix(file) else None
    if name is not None:
        return Item(file, _named(name), is_archive)
    if file == STDIN:
        raise click.UsageError("an archive on standard input needs a NAME: kubectl spool push - REPOSITORY[:TAG]")
    return Item(file, FileName.parse(Path(file).name).reference, is_archive)


def _named(name: str) -> Reference:
    reference = Reference.parse(name)
    if reference.digest is not None:
        raise click.UsageError("a digest cannot be chosen; push to a tag")
    return reference

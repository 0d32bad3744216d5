"""What is dropped: files of every kind, each unlike all others, and what a registry shows of them."""

from __future__ import annotations

import lzma
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from support.images import archives
from support.images.archive_parts import COMPRESSORS, Image, big_layer, hexdigest, layer

Reference = tuple[str, str]
"""A repository and a tag."""
Shown = tuple[tuple[str, ...], ...]
"""What a tag shows: for each image behind it (one, or those of an index) the diff IDs of its layers."""

REPOSITORIES = ("app", "team/app", "team/tool", "data")
TAGS = ("1", "2", "v3", "latest")
BASE = layer("what all images stand on", path="base.txt")
PLATFORMS = ("linux/amd64", "linux/arm64")

SINGLE: dict[str, Callable[[Image], bytes]] = {
    "oci": archives.oci_archive,
    "oci-plain": lambda image: archives.oci_archive(image, compress=bytes),
    "docker-legacy": archives.docker_legacy,
    "podman": archives.podman_docker,
    "crane": archives.crane,
    "jib": archives.jib,
    "docker-25": archives.docker_25,
}
"""Archives of one image."""

COMPRESS = COMPRESSORS | dict.fromkeys((".tar.xz", ".txz"), lambda content: lzma.compress(content, preset=0))
"""By suffix; xz in its fast form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A file's name and bytes, and what comes of it."""

    name: str
    content: bytes = field(repr=False)
    shows: Mapping[Reference, Shown | None] = field(default_factory=dict)
    """For each image that it is about; None: nothing any more."""
    is_good: bool = True
    """False: it is to end in `.failed`."""


class Factory:
    """Makes payloads by chance; no two have the same content."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._count = 0

    def any(self) -> Payload:
        """A file of any kind but deletions."""
        makers = (self.image, self.image, self.raw, self.raw, self.bad, self.misnamed, self.bundle, self.unmarked)
        return self._chance.choice(makers)()

    def like(self, name: str, shows: Mapping[Reference, Shown | None]) -> Payload:
        """Another content for a name of a single image, of the kind that the name asks for."""
        (reference,) = shows
        suffix = next((suffix for suffix in COMPRESS if name.endswith(suffix)), "")
        return self.image(reference, name) if suffix else self.raw(reference, name)

    def image(self, reference: Reference | None = None, name: str = "") -> Payload:
        """An archive with one image, or with an index of two platforms."""
        repository, tag = reference or self._reference()
        suffix = self._chance.choice(list(COMPRESS))
        content, shown = self._archive(f"registry.example/{repository}:{tag}")
        name = name or self._name(repository, tag, suffix)
        compress = COMPRESS[next(suffix for suffix in COMPRESS if name.endswith(suffix))]
        return Payload(name=name, content=compress(content), shows={(repository, tag): shown})

    def unmarked(self) -> Payload:
        """An archive whose name does not say so: somebody forgot the `.tar`."""
        repository, tag = self._reference()
        content, shown = self._archive(f"{repository}:{tag}")
        return Payload(name=self._name(repository, tag, ""), content=content, shows={(repository, tag): shown})

    def raw(self, reference: Reference | None = None, name: str = "") -> Payload:
        """A file that is no archive."""
        repository, tag = reference or self._reference()
        content = self._noise()
        shown = ((_digest(content),),)
        return Payload(name=name or self._name(repository, tag, ""), content=content, shows={(repository, tag): shown})

    def slow(self) -> Payload:
        """A file of an image that no other file is about."""
        self._count += 1
        return self.raw((self._chance.choice(REPOSITORIES), f"slow-{self._count}"))

    def bad(self) -> Payload:
        """An archive that is cut off, or has a blob that is not what its name says, or is none at all."""
        good = self.image()
        match self._chance.randrange(3):
            case 0:
                content = half(good.content)
            case 1:
                content = archives.oci_archive(self._image(""), compress=bytes).replace(b"noise-", b"n0ise-")
            case _:
                content = b"this is no archive" + self._noise()
        return Payload(name=good.name, content=content, is_good=False)

    def misnamed(self) -> Payload:
        """A file whose name names no image."""
        name = self._chance.choice(("Upper:{}.tar", "a..b:{}.bin", "app:-{}", "%zz:{}.tar", "@bundle{}", "_a:{}.tgz"))
        self._count += 1
        return Payload(name=name.format(self._count), content=self._noise(), is_good=False)

    def bundle(self) -> Payload:
        """An archive of several images, each going where the archive says."""
        references = {self._reference() for _ in range(self._chance.randrange(1, 4))}
        images = {reference: self._image(f"registry.example/{':'.join(reference)}") for reference in sorted(references)}
        make = self._chance.choice((archives.oci_archive, archives.podman_docker, archives.docker_25))
        suffix = self._chance.choice((".tar", ".tgz", ".tar.zst"))
        self._count += 1
        return Payload(
            name=f"@bundle-{self._count}{suffix}",
            content=COMPRESS[suffix](make(*images.values())),
            shows={reference: (tuple(image.diff_ids),) for reference, image in images.items()},
        )

    def is_raw(self, payload: Payload) -> bool:
        """Is it a file that is no archive, and can be appended to?"""
        return tuple(payload.shows.values()) == (((_digest(payload.content),),),)

    def longer(self, payload: Payload, more: bytes) -> Payload:
        """A file that is no archive, with more bytes at its end."""
        content = payload.content + more
        return Payload(name=payload.name, content=content, shows=dict.fromkeys(payload.shows, ((_digest(content),),)))

    def deletion(self) -> Payload:
        """The wish that a tag be gone."""
        repository, tag = self._reference()
        suffix = self._chance.choice(("", ".tar"))
        return Payload(name=f"{self._name(repository, tag, suffix)}!", content=b"", shows={(repository, tag): None})

    def _reference(self) -> Reference:
        return self._chance.choice(REPOSITORIES), self._chance.choice(TAGS)

    def _name(self, repository: str, tag: str, suffix: str) -> str:
        return f"{repository.replace('/', chr(92))}:{tag}{suffix}"

    def _archive(self, name: str) -> tuple[bytes, Shown]:
        if self._chance.random() < 0.2:
            images = [self._image(name, platform) for platform in PLATFORMS]
            return archives.containerd(images, name=name), tuple(tuple(image.diff_ids) for image in images)
        image = self._image(name)
        return self._chance.choice(list(SINGLE.values()))(image), (tuple(image.diff_ids),)

    def _image(self, name: str, platform: str = PLATFORMS[0]) -> Image:
        self._count += 1
        size = self._chance.choice((100, 100, 5_000, 5_000, 60_000, 60_000, 300_000, 1_500_000))
        own = big_layer(size, seed=self._chance.randrange(1 << 40))
        return Image(layers=(BASE, own), names=(name,) if name else (), platform=platform)

    def _noise(self) -> bytes:
        self._count += 1
        size = self._chance.choice((1, 2_000, 2_000, 70_000, 900_000))
        return b"%d:" % self._count + self._chance.randbytes(size)


def half(archive: bytes) -> bytes:
    """The first half of an archive; the zeros behind its end do not count."""
    return archive[: len(archive.rstrip(b"\0")) // 2]


def _digest(content: bytes) -> str:
    return f"sha256:{hexdigest(content)}"

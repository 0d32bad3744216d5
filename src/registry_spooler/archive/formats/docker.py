"""Docker archives: manifest.json, and the configs and layers it names.

https://github.com/moby/docker-image-spec/blob/main/spec.md and what the tools write: config and layers by any path,
layers plain or compressed, links to other layers, two images that share layers.
"""

from __future__ import annotations

import re
from typing import Any, Final

from registry_spooler.archive.contents import Contents
from registry_spooler.archive.formats.image import DockerImage, DockerLayer, Names
from registry_spooler.archive.limits import IMAGES_MAX, LISTED_MAX
from registry_spooler.archive.tar_header import Member, require_file, shown
from registry_spooler.errors import ArchiveError, InvalidReference
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.image_config import ImageConfig
from registry_spooler.oci.manifest import Descriptor, load_json
from registry_spooler.oci.reference import ImageName
from registry_spooler.text import count_text

_INDEX: Final = "manifest.json"
_CONFIG_NAME: Final = re.compile(r"(?:^|/)(?:sha256:)?([0-9a-f]{64})(?:\.json)?$")
"""The names that promise the config's digest, in every tool that names configs by digest."""


def read_docker(contents: Contents) -> tuple[DockerImage, ...]:
    """The images of a docker archive, in the order of its manifest.json."""
    items = load_json(contents.document(_INDEX), where=_INDEX)
    if isinstance(items, dict) and "layers" in items:
        raise ArchiveError(
            "it is an image's own manifest: this is a folder of `skopeo copy … dir:`; copy it to oci-archive: instead",
            where=_INDEX,
        )
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ArchiveError("it is not a list of images", where=_INDEX)
    if not items:
        raise ArchiveError("it names no image", where=_INDEX)
    if len(items) > IMAGES_MAX:
        raise ArchiveError(f"it lists {len(items):,} images; more than {IMAGES_MAX:,} are refused", where=_INDEX)
    for key in ("Layers", "RepoTags"):
        if sum(len(_strings(item, key)) for item in items) > LISTED_MAX:
            raise ArchiveError(f"its images list more than {LISTED_MAX:,} {key} in all", where=_INDEX)
    configs = _Configs(contents)
    return tuple(_read_item(contents, configs, item) for item in items)


def is_docker_index(content: bytes) -> bool:
    """Return whether it is a docker archive's manifest.json, by its shape."""
    try:
        items = load_json(content, where=_INDEX)
    except ArchiveError:
        return False
    return isinstance(items, list) and bool(items) and all(isinstance(i, dict) and "Config" in i for i in items)


class _Configs:
    """The configs of an archive, each read once, however many images share it."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._read: dict[Member | None, ImageConfig] = {}

    def at(self, path: str) -> ImageConfig:
        """The config by one of its paths."""
        member = self._contents.resolve(path)
        if member not in self._read:
            content = self._contents.document(path, what="the image's config")
            self._read[member] = ImageConfig.parse(content, where=shown(path))
        config = self._read[member]
        _check_config_name(path, config.digest)
        return config


def _read_item(contents: Contents, configs: _Configs, item: dict[str, Any]) -> DockerImage:
    config_path, paths = item.get("Config"), _strings(item, "Layers")
    if not isinstance(config_path, str):
        raise ArchiveError("an image has no Config", where=_INDEX)
    config = configs.at(config_path)
    diff_ids = config.diff_ids
    if len(paths) != len(diff_ids):
        raise ArchiveError(
            f"it names {count_text(len(paths), 'layer')} for an image whose config has {len(diff_ids):,}",
            where=f"{_INDEX}, {shown(config_path)}",
        )
    sources = _layer_sources(item)
    layers = tuple(
        _layer(contents, path, diff_id, sources.get(str(diff_id)))
        for path, diff_id in zip(paths, diff_ids, strict=True)
    )
    return DockerImage(config=config, layers=layers, called=_names(_strings(item, "RepoTags")))


def _layer(contents: Contents, path: str, diff_id: Digest, source: Descriptor | None) -> DockerLayer:
    member = contents.resolve(path)
    if member is not None:
        require_file(member, "the layer")
    return DockerLayer(path=path, diff_id=diff_id, member=member, source=source)


def _check_config_name(path: str, digest: Digest) -> None:
    named = _CONFIG_NAME.search(path)
    if named and digest.hex != named[1]:
        raise ArchiveError("the config does not have the digest that it is named by", where=shown(path))


def _strings(item: dict[str, Any], key: str) -> list[str]:
    values = item.get(key)
    if values is None:
        return []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ArchiveError(f"{key} is not a list of strings", where=_INDEX)
    return values


def _layer_sources(item: dict[str, Any]) -> dict[str, Descriptor]:
    sources = item.get("LayerSources") or {}
    if not isinstance(sources, dict):
        raise ArchiveError("LayerSources is not an object", where=_INDEX)
    return {key: Descriptor.read(value, where=f"{_INDEX}, LayerSources") for key, value in sources.items()}


def _names(tags: list[str]) -> Names:
    names = []
    for tag in tags:
        try:
            names.append(ImageName.parse(tag))
        except InvalidReference:
            continue  # `<none>:<none>` and its like: nobody can ask for it by this name
    return Names(names=tuple(names))

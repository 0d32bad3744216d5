"""Changes a JSON document value by value: bytes changed by chance are seldom JSON at all."""

from __future__ import annotations

import json
import random
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1 << 63, 1e308, 0.5, "", "a", "\u0000", "\ud7ff", "../x", "/", [], {}, [None], [[]]),
    *({"": 1}, "sha256:" + "0" * 64, "sha512:" + "0" * 128, "sha256:x", "x" * 300, "\u202e", "127.0.0.1"),
    *("application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json", "attestation-manifest"),
)
KEYS = (
    *("config", "layers", "manifests", "mediaType", "digest", "size", "subject", "annotations", "platform", "urls"),
    *("schemaVersion", "artifactType", "data", "Config", "Layers", "RepoTags", "LayerSources", "rootfs", "diff_ids"),
    *("auths", "auth", "username", "password", "identitytoken", "registrytoken", "credHelpers", "credsStore", "os"),
)


def mutate_json(data: bytes, max_bytes: int, seed: int) -> bytes | None:
    """The document with some of its values changed; None when it is no JSON, or has become too long."""
    chance = random.Random(seed)
    try:
        document = json.loads(data)
        for _ in range(chance.randrange(1, 4)):
            document = _changed(document, chance)
        changed = json.dumps(document, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return None
    return changed if len(changed) <= max_bytes else None


def _changed(value: Any, chance: random.Random) -> Any:
    """The same with one value, somewhere in it, replaced, taken from elsewhere, added or left out."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.1:
        return _new_value(value, chance)
    if isinstance(value, list):
        return _changed_list(value, chance)
    changed, key = dict(value), chance.choice(list(value))
    match chance.randrange(6):
        case 0:
            del changed[key]
        case 1:
            changed[chance.choice(KEYS)] = chance.choice([*value.values(), *VALUES])
        case _:
            changed[key] = _changed(value[key], chance)
    return changed


def _changed_list(value: list[Any], chance: random.Random) -> list[Any]:
    changed, at = list(value), chance.randrange(len(value))
    match chance.randrange(6):
        case 0:
            del changed[at]
        case 1:
            changed.insert(at, chance.choice([*value, *VALUES]))
        case _:
            changed[at] = _changed(value[at], chance)
    return changed


def _new_value(value: Any, chance: random.Random) -> Any:
    if isinstance(value, str) and value and chance.random() < 0.5:
        at = chance.randrange(len(value))
        return value[:at] + chance.choice(["", "/", ":", "@", "..", "\u0000", "é", value]) + value[at + 1 :]
    if isinstance(value, dict) and chance.random() < 0.5:
        return {chance.choice(KEYS): chance.choice(VALUES)}
    return chance.choice(VALUES)

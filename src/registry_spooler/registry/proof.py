"""Is it a registry that answers? Told from what an answer bears.

Anything may stand at a registry's address for a while: a proxy's web page, a development server, what says 200 or 201
to everything. Nothing that such a neighbour says may count as a registry's refusal of an image, or as its absence.
All the registries that are known here send the version header, but the specification does not ask for it; so its
error list counts as well, and where there is neither more has to be asked (`Exchange.prove`).
https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from registry_spooler.registry.transport import Answer

_VERSION: Final = "Docker-Distribution-Api-Version"


def is_page(headers: Mapping[str, str]) -> bool:
    """Return whether it is a web page, which no registry's answer is."""
    return "html" in headers.get("Content-Type", "").lower()


def shows_registry(answer: Answer) -> bool:
    """Return whether an answer bears a registry's mark.

    Proxies are set up to add the version header to whatever they say, so a page with it is a page none the less.
    """
    if is_page(answer.headers):
        return False
    return answer.headers.get(_VERSION, "").lower().startswith("registry/2") or _has_errors(answer.content)


def _has_errors(content: bytes) -> bool:
    try:
        document: Any = orjson.loads(content)
        return isinstance(document["errors"][0]["code"], str)
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return False

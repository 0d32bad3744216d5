"""One place for containers, with the images in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.containers.machine import Machine


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    with Machine() as place:
        place.import_base()
        place.build_spooler()
        place.build_registry()
        yield place

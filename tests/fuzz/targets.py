"""All targets by their names."""

from __future__ import annotations

from fuzz import of_answers, of_archives, of_deltas, of_settings
from fuzz.target import FuzzTarget

TARGETS: dict[str, FuzzTarget] = of_archives.TARGETS | of_answers.TARGETS | of_deltas.TARGETS | of_settings.TARGETS

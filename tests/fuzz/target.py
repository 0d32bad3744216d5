"""What a target is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FuzzTarget:
    """One piece of code that reads what others wrote."""

    check: Callable[[bytes], None]
    """Takes any bytes. What it raises is a find."""
    seeds: Callable[[], list[bytes]]
    """The first inputs: good ones, that lead deep into the code."""
    is_json: bool = False
    """Are its inputs JSON documents, to be changed value by value?"""
    max_bytes: int = 4096
    """How long an input may become."""

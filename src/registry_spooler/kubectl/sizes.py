"""Option types of this program."""

from __future__ import annotations

import re
from typing import Any, Final

import click

from registry_spooler.text import quoted

_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kMG]?)(i?)(?:B?(?:/s)?)?")
_FACTORS: Final = {"": 0, "k": 1, "M": 2, "G": 3}


class Rate(click.ParamType[float]):
    """Bytes per second: `500k`, `2M`, `1.5MiB/s`."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it; a usage error when it is none."""
        if isinstance(value, float):
            return value
        matched = _RATE.fullmatch(str(value).strip())
        if matched is None or (rate := _rate(*matched.groups())) <= 0:
            self.fail(f"{quoted(str(value))} is no rate; write 500k, 2M or 1.5MiB/s", param, ctx)
        return rate


def _rate(number: str, unit: str, binary: str) -> float:
    return float(number) * float((1024 if binary else 1000) ** _FACTORS[unit])

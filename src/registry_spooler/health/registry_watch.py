"""Is the registry there? Asked by a ping, at intervals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from registry_spooler.errors import SpoolerError
from registry_spooler.health.check import Check

Ping = Callable[[], Awaitable[None]]
"""Returns when the registry has answered as a registry does; raises SpoolerError when it has not."""

UP_INTERVAL_SECONDS: Final = 10.0
DOWN_INTERVAL_SECONDS: Final = 2.0
"""Sooner, so that the pod is ready soon after its registry."""
TIMEOUT_SECONDS: Final = 5.0


def registry_interval(check: Check) -> float:
    """When to ask again, in seconds from now."""
    return UP_INTERVAL_SECONDS if check.passing else DOWN_INTERVAL_SECONDS


async def look_at_registry(ping: Ping, check: Check, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    """Ask once. An error that nobody foresaw makes the check fail too, and is raised."""
    try:
        with anyio.fail_after(timeout_seconds):
            await ping()
    except TimeoutError:
        check.fails(f"the registry has not answered within {timeout_seconds:g} seconds")
    except SpoolerError as exc:
        check.fails(str(exc))
    except Exception as exc:
        check.fails(f"asking the registry met an internal error ({type(exc).__name__}); the log has more")
        raise
    else:
        check.passes("the registry answers")

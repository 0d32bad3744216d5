"""The daemon's settings, grouped by what they are for; read once, then frozen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from registry_spooler.push import PushOptions
from registry_spooler.spool import SpoolSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """Where probes and scrapers are answered."""

    address: str = ""
    """Empty: on every address, IPv4 and IPv6, since the kubelet's probes come from outside the pod."""
    port: int = 8086
    spool_limit_bytes: int | None = None
    """What the spool directory may hold, where its file system can hold more. None: no limit but that."""
    hosts: tuple[str, ...] = ()
    """Names, beside the machine's own, under which page and status are answered: an ingress's, say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Where the log goes, and what it looks like."""

    path: Path | None = None
    """None: standard error."""
    verbose: int = 0
    log_format: str = "text"
    colorize: str = "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings:
    """All but the registry's own, which `options` reads for every program."""

    spool: SpoolSettings
    push: PushOptions
    health: HealthSettings
    log: LogSettings

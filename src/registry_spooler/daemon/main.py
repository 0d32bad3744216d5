"""The program `registry-spooler`: its options, and the one place that starts and ends the process."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any, Final

import click

from registry_spooler.archive.compression import Compression
from registry_spooler.cli.registry_options import SPOOL_SIZE, RegistrySettings, option, registry_options
from registry_spooler.daemon.log_output import logging_to
from registry_spooler.daemon.service import DaemonSettings, HealthSettings, run
from registry_spooler.push.pusher import PushOptions
from registry_spooler.spool.settings import SpoolSettings
from registry_spooler.version import __version__

PREFIX: Final = ("REGISTRY_SPOOLER",)
_COMPRESSIONS: Final = [Compression.GZIP.value, Compression.ZSTD.value, Compression.NONE.value]
_BOOLEANS: Final = {"1": "true", "t": "true", "yes": "true", "0": "false", "f": "false", "no": "false"}


class _Colours(click.Choice[str]):
    """When the log has colours. Manifests of earlier versions say it as any boolean."""

    def __init__(self) -> None:
        super().__init__(["true", "false", "force"], case_sensitive=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return one of the three words; a usage error when it is none."""
        return super().convert(_BOOLEANS.get(str(value).lower(), value), param, ctx)


_CONTEXT: Final = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}


@click.command(context_settings=_CONTEXT)
@option(PREFIX, "-d", "--directory", type=click.Path(path_type=Path), default=Path("/spool"),
        help="The spool directory.")  # fmt: skip
@registry_options(*PREFIX)
@option(PREFIX, "-q", "--queue", type=click.IntRange(1, 64, clamp=True), default=4,
        help="Jobs at once; more than 64 are 64.")  # fmt: skip
@option(PREFIX, "--compression", type=click.Choice(_COMPRESSIONS), default="gzip",
        help="For the plain layers of docker archives.")  # fmt: skip
@option(PREFIX, "--verify", type=click.Choice(["digest", "full"]), default="digest",
        help="digest: sizes and digests, and diff IDs of layers that are compressed here. "
             "full: also inflate layers that come compressed, to check their diff IDs and checksums.")  # fmt: skip
@option(PREFIX, "--settle", type=click.FloatRange(0, 3600), default=5.0, metavar="SECONDS",
        help="How long a file written in place must rest before it counts as incomplete for good.")  # fmt: skip
@option(PREFIX, "--rescan", type=click.FloatRange(1, 86400), default=60.0, metavar="SECONDS",
        help="Between two full scans, for file systems that send no events.")  # fmt: skip
@option(PREFIX, "--stale-after", type=click.FloatRange(1), default=86400.0, metavar="SECONDS",
        help="When a …~ file shows as stale.")  # fmt: skip
@option(PREFIX, "--spool-limit", "spool_limit_bytes", type=SPOOL_SIZE, metavar="SIZE",
        help="What the spool directory may hold, such as 10GiB, where its file system can hold more: uploads beyond it "
             "are refused, and less free room is shown.")  # fmt: skip
@option(PREFIX, "--receipts", type=click.IntRange(1), default=1000, help="How many receipts are kept.")
@option(PREFIX, "--shutdown-grace", type=click.FloatRange(0, 3600), default=20.0, metavar="SECONDS",
        help="For running jobs to finish after SIGTERM.")  # fmt: skip
@option(PREFIX, "--health-port", type=click.IntRange(0, 65535), default=8086,
        help="For probes, metrics and status; 0 takes any free one.")  # fmt: skip
@option(PREFIX, "--health-address", default="", help="Address to listen on for them (default: all).")
@option(PREFIX, "--health-host", "health_hosts", multiple=True, metavar="NAME",
        help="Name under which page and status are answered, such as an ingress's; can be given several times. "
             "Addresses, the machine's own name and the cluster's names always do.")  # fmt: skip
@option(PREFIX, "-l", "--log", type=click.Path(path_type=Path, dir_okay=False),
        help="File for the log; standard error when not given.")  # fmt: skip
@option(PREFIX, "-v", "--verbose", count=True,
        help="Log every attempt and deferral, not only those that are news; twice for debugging.")  # fmt: skip
@option(PREFIX, "--log-format", type=click.Choice(["text", "json"]), default="text", help="For people, or machines.")
@option(PREFIX, "-z", "--colorize", type=_Colours(), default="true",
        help="Colours in the log: true means on a terminal only.")  # fmt: skip
@click.version_option(package_name="registry-spooler", prog_name="registry-spooler")
def command(**values: Any) -> None:
    """Push what is put into a directory to a container registry.

    Every option can be set by an environment variable: --health-port by REGISTRY_SPOOLER_HEALTH_PORT.
    """
    registry = RegistrySettings.take(values)
    settings = _settings(values)
    log = {name: values[name] for name in ("verbose", "log_format", "colorize")}
    with _log_stream(values["log"]) as stream, logging_to(stream, **log):
        sys.exit(run(settings, registry, __version__))


def _log_stream(path: Path | None) -> AbstractContextManager[IO[str]]:
    if path is None:
        return nullcontext(sys.stderr)
    try:
        return path.open("a", encoding="utf-8")
    except OSError as exc:
        raise click.FileError(str(path), exc.strerror) from exc


def _settings(values: dict[str, Any]) -> DaemonSettings:
    return DaemonSettings(
        spool=SpoolSettings(
            directory=values["directory"],
            jobs_at_once=values["queue"],
            settle_seconds=values["settle"],
            rescan_seconds=values["rescan"],
            stale_after_seconds=values["stale_after"],
            receipts_kept=values["receipts"],
            shutdown_grace_seconds=values["shutdown_grace"],
        ),
        push=PushOptions(compression=Compression(values["compression"]), inflate=values["verify"] == "full"),
        health=HealthSettings(
            address=values["health_address"],
            port=values["health_port"],
            hosts=values["health_hosts"],
            spool_limit_bytes=values["spool_limit_bytes"],
        ),
    )

"""The start of the program `registry-spooler`: what has to be done before most of it is imported."""

from __future__ import annotations

from registry_spooler.cli.authorities import without_authorities
from registry_spooler.daemon.stop_signals import STOP_SIGNALS


def main() -> None:
    """Run the program."""
    STOP_SIGNALS.install()
    with without_authorities():
        from registry_spooler.daemon.main import command
    command(prog_name="registry-spooler")

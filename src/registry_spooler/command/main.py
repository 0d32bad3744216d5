"""The program `registry-client`: its group of commands, and how they end."""

from __future__ import annotations

import os
import sys

import click

from registry_spooler.command.remote import FarEnd
from registry_spooler.command.spool_commands import deposit, failed, retry, status
from registry_spooler.errors import SpoolerError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="registry-spooler", prog_name="registry-client")
@click.option("--remote", is_flag=True, hidden=True, help="Be the far end of an exec channel.")
@click.option("--stdin-bytes", type=click.IntRange(min=0), hidden=True, help="The length of standard input.")
@click.pass_context
def cli(context: click.Context, remote: bool, stdin_bytes: int | None) -> None:
    """Look into a registry, push to it, and follow the spooler beside it."""
    if remote:
        context.obj = FarEnd()
        context.obj.attach(stdin_bytes)


for command in (deposit, status, failed, retry):
    cli.add_command(command)


def main() -> None:
    """Run the program; the one place that ends the process."""
    try:
        with cli.make_context("registry-client", sys.argv[1:]) as context:
            try:
                cli.invoke(context)
            except SpoolerError as exc:
                _report(context, exc)
                sys.exit(1)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt, BrokenPipeError):
        os._exit(1)
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)


def _report(context: click.Context, error: SpoolerError) -> None:
    if isinstance(context.obj, FarEnd):
        context.obj.error(error)
    else:
        click.echo(f"registry-client: {error}", err=True)

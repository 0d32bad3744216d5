"""The program `registry-client`: its commands, and how they end.

Only this module ends the process. A command raises what went wrong; what that means for the exit code is decided here.
"""

from __future__ import annotations

import signal
import sys
from typing import Any, Final, NoReturn

import click

from registry_spooler.cli import printing
from registry_spooler.cli.process import ExitCode, Interrupted, end_at_once, end_by, exit_code
from registry_spooler.cli.registry_client.connection import PREFIXES, Context, earlier_options, with_context
from registry_spooler.cli.registry_client.contents_commands import delete, inspect, list_images, tags
from registry_spooler.cli.registry_client.missing import missing, rebuild, signature
from registry_spooler.cli.registry_client.remote_end import RemoteSession
from registry_spooler.cli.registry_client.spool_commands import deposit, discard, failed, retry, status, wait
from registry_spooler.cli.registry_client.transfers import pull, push, receive
from registry_spooler.cli.registry_options import registry_options
from registry_spooler.errors import SpoolerError
from registry_spooler.kubernetes.wire import REQUESTS, RemoteFailure
from registry_spooler.pull.output import OutputClosed

PROGRAM: Final = "registry-client"


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="registry-spooler", prog_name="registry-client")
@click.option("--remote", is_flag=True, hidden=True, help="Be the remote end of an exec channel.")
@click.option("--stdin-bytes", type=click.IntRange(min=0), hidden=True, help="The length of standard input.")
@registry_options(*PREFIXES)
@earlier_options
@click.pass_context
def cli(context: click.Context, /, remote: bool, stdin_bytes: int | None, **_: Any) -> None:
    """Look into a registry, take images out and put them in, and follow the spooler beside it.

    The options here go with every command that talks to the registry, before or behind the command's name. Each can be
    an environment variable: --registry is REGISTRY_CLIENT_REGISTRY, and what is set for the spooler as
    REGISTRY_SPOOLER_REGISTRY counts here too.

    Exit codes: 0 done, 1 failed, 2 wrong usage or a FILE that is not there, 3 not found in the registry or the spool,
    4 not allowed.
    """
    if context.obj is None and remote:
        session = RemoteSession(stdin_bytes=stdin_bytes)
        session.attach()
        context.obj = Context(session)
    context.obj = context.obj or Context()
    if context.obj.remote is not None:
        context.with_resource(printing.answering(context.obj.remote.answer))


_IN_REGISTRY: Final = (list_images, tags, inspect, pull, push, delete, missing, receive, signature, rebuild)
_IN_SPOOL: Final = (wait, status, failed, retry, discard, deposit)
for command in (*_IN_REGISTRY, *_IN_SPOOL):
    cli.add_command(command)


def main() -> NoReturn:
    """Run the program to its exit code."""
    session: RemoteSession | None = None
    code = int(ExitCode.DONE)
    try:
        with cli.make_context(PROGRAM, sys.argv[1:]) as context:
            try:
                cli.invoke(context)
            finally:
                session = context.obj.remote if context.obj is not None else None
    except click.exceptions.Exit as exc:
        code = exc.exit_code
    except (click.ClickException, SpoolerError) as exc:
        code = _report(session, exc)
    except (OutputClosed, BrokenPipeError):
        _end(session, signal.SIGPIPE)
    except (Interrupted, KeyboardInterrupt, click.Abort) as exc:
        _end(session, exc.signum if isinstance(exc, Interrupted) else signal.SIGINT)
    if session is not None:
        session.conclude(code)
    sys.exit(code)


@click.command(REQUESTS, hidden=True)
@with_context
def requests(context: Context) -> None:
    """Do what standard input asks for, command by command: see `kubernetes/transfer/conversation.py`."""
    session = context.remote
    if session is None:
        raise click.UsageError("this is the remote end of an exec channel, and needs --remote")
    while (arguments := session.next_request()) is not None:
        session.conclude(run_for(session, arguments))


cli.add_command(requests)


def run_for(session: RemoteSession, arguments: list[str]) -> int:
    """Run one command for a remote caller; its exit code."""
    try:
        with cli.make_context(PROGRAM, arguments, obj=Context(session)) as context:
            cli.invoke(context)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except (click.ClickException, SpoolerError) as exc:
        return _report(session, exc)
    except (OutputClosed, BrokenPipeError, Interrupted):
        return ExitCode.FAILED
    return ExitCode.DONE


def failure(error: click.ClickException | SpoolerError) -> RemoteFailure:
    """Return what a remote caller is told of an error."""
    sentence, code = _sentence(error), _code(error)
    if isinstance(error, click.ClickException):
        return RemoteFailure(sentence=sentence, kind="UsageError", code=code)
    kind = type(error).__name__
    return RemoteFailure(sentence=sentence, kind=kind, code=code, temporary=error.transient, detail=error.detail)


def _report(session: RemoteSession | None, error: click.ClickException | SpoolerError) -> int:
    """Say in one sentence what went wrong; return the exit code."""
    if session is None:
        printing.warn(_sentence(error))
    else:
        session.fail(failure(error))
    return _code(error)


def _code(error: click.ClickException | SpoolerError) -> int:
    return error.exit_code if isinstance(error, click.ClickException) else int(exit_code(error))


def _sentence(error: click.ClickException | SpoolerError) -> str:
    if not isinstance(error, click.ClickException):
        return str(error)
    command = getattr(getattr(error, "ctx", None), "command_path", PROGRAM)
    help_hint = f" ({command} --help)" if isinstance(error, click.UsageError) else ""
    return error.format_message() + help_hint


def _end(session: RemoteSession | None, signum: int) -> NoReturn:
    """End quietly: by the signal, or as failed when the caller is remote and cannot see how."""
    if session is not None:
        end_at_once(ExitCode.FAILED)
    end_by(signum)

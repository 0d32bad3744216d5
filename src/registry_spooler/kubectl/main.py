"""The program `kubectl-spool`, which kubectl finds as `kubectl spool`: its commands, and how they end.

Only this module ends the process. The exit codes are those of `registry-client`: 0 done, 1 failed, 2 wrong usage,
3 not found, 4 not allowed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import NoReturn

import click

from registry_spooler.errors import AccessDenied, InvalidFileName, InvalidReference, NotFound, SpoolerError
from registry_spooler.kube.errors import KubeForbidden, KubeLoginRejected, KubeNotFound, NoContainer, NoPod, RemoteError
from registry_spooler.kubectl.completion import completion
from registry_spooler.kubectl.doctor import doctor
from registry_spooler.kubectl.images import delete, inspect, list_images, pull, tags
from registry_spooler.kubectl.install import install
from registry_spooler.kubectl.output import DONE, FAILED, NOT_ALLOWED, NOT_FOUND, PROGRAM, USAGE, warn
from registry_spooler.kubectl.pushing import publish, push
from registry_spooler.kubectl.queue import discard, failed, logs, retry, status, wait
from registry_spooler.kubectl.target import Target, target_options

_OF_THE_EXTRA = frozenset({"kubernetes_asyncio", "rich", "yaml"})
"""Packages that only the extra `client` installs."""

_CODES: tuple[tuple[tuple[type[SpoolerError], ...], int], ...] = (
    ((KubeForbidden, KubeLoginRejected, AccessDenied), NOT_ALLOWED),
    ((KubeNotFound, NoPod, NoContainer, NotFound), NOT_FOUND),
    ((InvalidReference, InvalidFileName), USAGE),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="registry-spooler", prog_name="kubectl-spool")
@target_options
def cli(target: Target) -> None:
    """Push images to a cluster's registry through its API server, and see what its spooler does.

    Only what the registry lacks is sent. Nothing but the API server has to be reachable.

    Exit codes: 0 done, 1 failed, 2 wrong usage or a FILE that is not there, 3 not found in the cluster, 4 not allowed.
    """


for command in (
    install,
    push,
    publish,
    pull,
    list_images,
    tags,
    inspect,
    delete,
    status,
    wait,
    failed,
    retry,
    discard,
    logs,
    doctor,
    completion,
):
    cli.add_command(command)


def exit_code(error: SpoolerError) -> int:
    """The code that tells a script what kind of error it was."""
    if isinstance(error, RemoteError):
        return error.exit_code if error.exit_code in (USAGE, NOT_FOUND, NOT_ALLOWED) else FAILED
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), FAILED)


def main() -> NoReturn:
    """Run the program to its exit code."""
    try:
        with cli.make_context(PROGRAM, sys.argv[1:]) as context:
            cli.invoke(context)
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except SpoolerError as exc:
        warn(str(exc))
        sys.exit(exit_code(exc))
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in _OF_THE_EXTRA:
            raise
        warn(f"{exc.name} is not installed: pip install 'registry-spooler[client]'")
        sys.exit(FAILED)
    except BrokenPipeError:
        _end_by("SIGPIPE")
    except OSError as exc:
        warn(f"{exc.filename or 'a file'}: {exc.strerror or exc}")
        sys.exit(FAILED)
    except (click.Abort, KeyboardInterrupt):
        _end_by("SIGINT")
    sys.exit(DONE)


def _end_by(name: str) -> NoReturn:
    """Die of a signal, as a shell expects; where there are none, with a code."""
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    number = getattr(signal, name, None)
    if number is not None and sys.platform != "win32":
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(FAILED)

"""The program `kubectl-spool`: its commands, how they end, and completion in the shells.

kubectl asks a program `kubectl_complete-spool` on PATH for the words that fit, one a line, and a last line with a
directive: https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/ ("completion").

Only this module ends the process. The exit codes are those of `registry-client`: 0 done, 1 failed, 2 wrong usage,
3 not found, 4 not allowed.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import Final, NoReturn

import click
from click.shell_completion import ShellComplete, get_completion_class

from registry_spooler.cli import printing
from registry_spooler.cli.kubectl.target import ClusterTarget, target_options
from registry_spooler.cli.printing import warn
from registry_spooler.cli.process import ExitCode, Interrupted, end_by, end_of_pipe, exit_code
from registry_spooler.errors import SpoolerError
from registry_spooler.pull.output import OutputClosed

PROGRAM: Final = "kubectl spool"
VARIABLE = "_KUBECTL_SPOOL_COMPLETE"
_DEFAULT_DIRECTIVE = ":0"
"""The shell may complete file names where nothing else fits."""


@click.command(epilog='In bash: eval "$(kubectl-spool completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes `kubectl-spool` in a shell."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "kubectl-spool", VARIABLE).source())


def complete_for_kubectl() -> None:
    """The program `kubectl_complete-spool`."""
    *words, incomplete = sys.argv[1:] or [""]
    completer = ShellComplete(cli, {}, "kubectl-spool", VARIABLE)
    for item in completer.get_completions(words, incomplete):
        if item.type == "plain":
            click.echo(f"{item.value}\t{item.help}" if item.help else item.value)
    click.echo(_DEFAULT_DIRECTIVE)


_OF_THE_EXTRA = frozenset({"kubernetes_asyncio", "rich", "yaml"})
"""Packages that only the extra `client` installs."""


class _Commands(click.Group):
    """The commands, each imported when it is wanted: to import all takes a tenth of a second."""

    modules: Final = {
        "install": "install",
        "uninstall": "uninstall",
        "load": "load",
        "push": "pushing.push_commands",
        "publish": "pushing.push_commands",
        "pull": "images",
        "list": "images",
        "tags": "images",
        "inspect": "images",
        "delete": "images",
        "status": "spooler_commands",
        "wait": "spooler_commands",
        "failed": "spooler_commands",
        "retry": "spooler_commands",
        "discard": "spooler_commands",
        "logs": "spooler_commands",
        "doctor": "doctor",
        "completion": "program",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return their names."""
        return sorted(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one."""
        if cmd_name not in self.modules:
            return None
        module = import_module(f"registry_spooler.cli.kubectl.{self.modules[cmd_name]}")
        command: click.Command = getattr(module, "list_images" if cmd_name == "list" else cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="registry-spooler", prog_name="kubectl-spool")
@target_options
def cli(target: ClusterTarget) -> None:
    """Push images to a cluster's registry through its API server, and see what its spooler does.

    Only what the registry lacks is sent. Nothing but the API server has to be reachable.

    Exit codes: 0 done, 1 failed, 2 wrong usage or a FILE that is not there, 3 not found in the cluster, 4 not allowed.
    """


def main() -> NoReturn:
    """Run the program to its exit code."""
    printing.program = PROGRAM
    code = int(ExitCode.DONE)
    try:
        with cli.make_context(PROGRAM, sys.argv[1:]) as context:
            cli.invoke(context)
    except click.exceptions.Exit as exc:
        code = exc.exit_code
    except click.ClickException as exc:
        exc.show()
        code = exc.exit_code
    except (OutputClosed, BrokenPipeError):
        end_of_pipe()
    except SpoolerError as exc:
        warn(str(exc))
        code = exit_code(exc)
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in _OF_THE_EXTRA:
            raise
        warn(f"{exc.name} is not installed: pip install 'registry-spooler[client]'")
        code = ExitCode.FAILED
    except OSError as exc:
        warn(f"{exc.filename or 'a file'}: {exc.strerror or exc}")
        code = ExitCode.FAILED
    except (Interrupted, click.Abort, KeyboardInterrupt) as exc:
        end_by(exc.signum if isinstance(exc, Interrupted) else signal.SIGINT)
    sys.exit(code)

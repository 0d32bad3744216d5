"""`completion`: scripts for the shells; and how kubectl itself completes `kubectl spool …`.

kubectl asks a program `kubectl_complete-spool` on PATH for the words that fit, one a line, and a last line with a
directive: https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/ ("completion").
"""

from __future__ import annotations

import sys

import click
from click.shell_completion import ShellComplete, get_completion_class

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
    from registry_spooler.kubectl.main import cli

    *words, incomplete = sys.argv[1:] or [""]
    completer = ShellComplete(cli, {}, "kubectl-spool", VARIABLE)
    for item in completer.get_completions(words, incomplete):
        if item.type == "plain":
            click.echo(f"{item.value}\t{item.help}" if item.help else item.value)
    click.echo(_DEFAULT_DIRECTIVE)

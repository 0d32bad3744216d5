"""The command line of `./dev cluster`."""

# ruff: noqa: T201, S606 - it speaks to a person, and becomes the program that it was asked to run

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from localcluster import programs
from localcluster.cluster import DEFAULT_NAME, Cluster, existing, number_of

EXAMPLES = """\
examples:
  ./dev cluster up --nodes 2 app.tar
  ./dev cluster run kubectl get nodes
  ./dev cluster run --as pusher kubectl spool push app.tar app:v1
  ./dev cluster on 1 ctr --namespace k8s.io images list
  ./dev cluster restart apiserver --after 20
  ./dev cluster down
"""


def main() -> int:
    """Run one command; its exit code is ours."""
    arguments = _parser().parse_args()
    if os.geteuid():
        print("./dev cluster: needs root", file=sys.stderr)
        return 1
    try:
        return int(arguments.command(arguments) or 0)
    except (RuntimeError, TimeoutError, ValueError, programs.ProgramsMissing) as exc:
        print(f"./dev cluster: {exc}", file=sys.stderr)
        return 1


def up(arguments: argparse.Namespace) -> None:
    """Start a cluster, and load images into its nodes."""
    cluster = Cluster(arguments.name)
    cluster.up(programs.have(), arguments.nodes)
    for archive in arguments.archives:
        cluster.load(archive)
    print(cluster.kubectl("get", "nodes", "--output=wide"), end="")


def down(arguments: argparse.Namespace) -> None:
    """End a cluster, and remove everything that it was."""
    Cluster(arguments.name).down()


def run(arguments: argparse.Namespace) -> None:
    """Run a command in the cluster's network, with KUBECONFIG and kubectl set."""
    command = [*_running(arguments).command(arguments.user, arguments.group), *arguments.words]
    os.execvp(command[0], command)


def on(arguments: argparse.Namespace) -> None:
    """Run a command on a node: among its processes, with its files."""
    command = [*_running(arguments).nodes[arguments.node - 1].enter(), *arguments.words]
    os.execvp(command[0], command)


def restart(arguments: argparse.Namespace) -> None:
    """Kill a program and start it again."""
    _running(arguments).restart(arguments.program, arguments.node, arguments.after)


def load(arguments: argparse.Namespace) -> None:
    """Import image archives into the nodes' containerd."""
    for archive in arguments.archives:
        _running(arguments).load(archive, arguments.node)


def kubeconfig(arguments: argparse.Namespace) -> None:
    """Print a user's kubeconfig, valid in the cluster's network."""
    print(_running(arguments).kubeconfig(arguments.user, arguments.group).read_text())


def status(_: argparse.Namespace) -> None:
    """List the clusters, and what runs in them."""
    for cluster in existing():
        print(f"{cluster.name}: {'running' if cluster.is_running else 'dead; `up` or `down` cleans up'}")
        for node in cluster.nodes if cluster.is_running else ():
            states = (f"{name}{'' if node.is_running(name) else ' (ended)'}" for name in node.programs())
            print(f"  node{number_of(node)}: {', '.join(states)}; logs in {node.folder / 'logs'}")


def _running(arguments: argparse.Namespace) -> Cluster:
    cluster = Cluster(arguments.name)
    if not cluster.is_running:
        raise RuntimeError(f"the cluster {cluster.name!r} does not run: ./dev cluster up")
    return cluster


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev cluster", description="A real Kubernetes on this machine, in namespaces of its own.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    made = {}
    for command in (up, down, run, on, restart, load, kubeconfig, status):
        made[command] = commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        made[command].set_defaults(command=command)
        made[command].add_argument("--name", default=DEFAULT_NAME, help="of several clusters (default: %(default)s)")
    for command in (run, kubeconfig):
        made[command].add_argument("--as", dest="user", default="admin", metavar="USER", help="default: %(default)s")
        made[command].add_argument("--group", help="the user's (default: USERs)")
    for command in (restart, load):
        made[command].add_argument("--node", type=int, help="its number", default=1 if command is restart else None)
    made[up].add_argument("--nodes", type=int, default=1, help="how many (default: %(default)s)")
    made[restart].add_argument("--after", type=float, default=0, metavar="SECONDS", help="stay away for so long")
    made[restart].add_argument("program")
    made[on].add_argument("node", type=int, help="its number")
    for command, number in ((up, "*"), (load, "+")):
        made[command].add_argument("archives", nargs=number, type=Path, metavar="FILE", help="image archives")
    for command in (run, on):
        made[command].add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as exc:
        print(f"./dev cluster: failed: {exc.cmd}\n{exc.stderr or ''}", file=sys.stderr)
        sys.exit(1)

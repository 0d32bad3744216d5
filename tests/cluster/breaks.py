"""What fails in a cluster, or goes away, while somebody pushes."""

from __future__ import annotations

from collections.abc import Callable

from cluster.installation import DEPLOYMENT, Installation

Break = Callable[[Installation], None]


def restart_apiserver(installation: Installation) -> None:
    installation.cluster.restart("apiserver")


def leave_apiserver_away(installation: Installation) -> None:
    installation.cluster.restart("apiserver", after_seconds=10)


def restart_kubelet(installation: Installation) -> None:
    installation.cluster.restart("kubelet")


def leave_kubelet_away(installation: Installation) -> None:
    installation.cluster.restart("kubelet", after_seconds=10)


def kill_spooler(installation: Installation) -> None:
    installation.kill("spooler")


def kill_registry(installation: Installation) -> None:
    installation.kill("registry")


def replace_pod(installation: Installation) -> None:
    installation.kubectl("rollout", "restart", DEPLOYMENT)


def delete_pod(installation: Installation) -> None:
    installation.kubectl("delete", "pod", "--wait=false", installation.pod)

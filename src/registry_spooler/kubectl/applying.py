"""The user's own kubectl, which renders manifests and applies them."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any, Final

from registry_spooler.errors import SpoolerError
from registry_spooler.kubectl.output import warn
from registry_spooler.kubectl.target import Target

_PROGRAM: Final = "kubectl"
"""The user's own, from the user's PATH."""


class InstallError(SpoolerError):
    """The installation cannot be done, or kubectl has refused it."""


class KubectlError(InstallError):
    """kubectl has refused something; `said` is the last line that it wrote to standard error."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Runs kubectl for a target."""

    target: Target

    @staticmethod
    def is_here() -> bool:
        """Return whether there is a kubectl on the PATH."""
        return shutil.which(_PROGRAM) is not None

    @property
    def namespace(self) -> str | None:
        """The namespace that was asked for; None means the context's own."""
        return self.target.namespace

    def run(self, *arguments: str, stdin: bytes | None = None) -> None:
        """Run kubectl for the target; what it says is shown on standard error. InstallError if it fails."""
        done = subprocess.run(  # noqa: S603 - no shell reads it
            [_PROGRAM, *arguments, *self._flags()], stdout=subprocess.PIPE, input=stdin, check=False
        )
        if done.stdout:
            warn_lines(done.stdout)
        if done.returncode:
            raise InstallError(f"`kubectl {arguments[0]}` has failed; what it says stands above")

    def read(self, *arguments: str, cluster_wide: bool = False) -> bytes:
        """Return what kubectl prints. KubectlError if it fails."""
        flags = [] if arguments[0] == "kustomize" else self._flags(cluster_wide=cluster_wide)
        done = subprocess.run([_PROGRAM, *arguments, *flags], capture_output=True, check=False)  # noqa: S603 - as above
        if done.returncode:
            raise KubectlError(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])
        return done.stdout

    def get(self, *arguments: str, cluster_wide: bool = False) -> list[dict[str, Any]]:
        """Return the objects that `kubectl get` finds, none if there are none. KubectlError if it may not look."""
        text = self.read("get", *arguments, "--ignore-not-found", "--output=json", cluster_wide=cluster_wide)
        found: dict[str, Any] = json.loads(text) if text.strip() else {"items": []}
        items: list[dict[str, Any]] = found.get("items", [found])
        return items

    def _flags(self, *, cluster_wide: bool = False) -> list[str]:
        flags = self.target.kubectl_flags()
        return [flag for flag in flags if not (cluster_wide and flag.startswith("--namespace="))]


def warn_lines(text: bytes) -> None:
    """Show lines for people, beside the answer."""
    for line in text.decode(errors="replace").strip().splitlines():
        warn(line)

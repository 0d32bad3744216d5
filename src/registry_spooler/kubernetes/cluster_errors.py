"""What can go wrong between the user and the pod: the branch of the error tree for the cluster.

Each sentence ends with what to do next, because the person who reads it is rarely the one who set
the cluster up.
"""

from __future__ import annotations

import re
from dataclasses import KW_ONLY
from typing import Final

from registry_spooler.errors import TRANSIENT_STATUSES, SpoolerError


class KubeError(SpoolerError):
    """Something between us and the pod."""


class KubeConfigurationError(KubeError):
    """No kubeconfig, or one that does not say how to reach a cluster."""

    reason: str
    sentence = "{reason}; give --kubeconfig or --context, or see `kubectl config get-contexts`"


class KubeUnreachable(KubeError):
    """The API server does not answer: refused, reset, timed out, name not resolved, TLS not agreed on."""

    server: str
    reason: str
    temporary = True
    sentence = "the cluster's API server {server} cannot be reached: {reason}; try `kubectl cluster-info`"


_REFUSED: Final = re.compile(r'cannot ([a-z]+) resource "([a-z]+(?:/[a-z]+)?)"')
"""https://github.com/kubernetes/apiserver/blob/master/pkg/endpoints/handlers/responsewriters/errors.go"""


_JUST_STARTED: Final = "it was allowed a moment ago, so the server may have just started"


class KubeAnswer(KubeError):
    """The API server refused a request. `asked` is what we wanted, such as `exec in pod spooler-0`."""

    status: int
    asked: str
    namespace: str
    message: str = ""

    sentence = "the API server answered {status} to {asked} in namespace {namespace}{_server_words}; {next_step}"

    def __post_init__(self) -> None:
        self.temporary = self.status in TRANSIENT_STATUSES

    @property
    def next_step(self) -> str:
        """What the user can do about it; ends the sentence."""
        return "`kubectl spool doctor` looks into it"

    @property
    def _server_words(self) -> str:
        return f" ({self.message})" if self.message else ""


class KubeLoginRejected(KubeAnswer):
    """401: the credentials of the kubeconfig are not accepted, or no longer."""

    @property
    def next_step(self) -> str:
        """Log in again."""
        if self.temporary:
            return _JUST_STARTED
        return "log in to the cluster again, then check with `kubectl auth whoami`"


class KubeForbidden(KubeAnswer):
    """403: these credentials may not do that."""

    _: KW_ONLY
    permission: str = ""

    @property
    def next_step(self) -> str:
        """Which permission to ask for, and how to check it: what the server says is missing, or else what we know."""
        if self.temporary:
            return _JUST_STARTED
        refused = _REFUSED.search(self.message)
        verb, resource = (refused[1], refused[2]) if refused else (*self.permission.split(), "", "")[:2]
        if not resource:
            return "ask for the permission, or choose another namespace with -n"
        kind, _, part = resource.partition("/")
        check = f"kubectl auth can-i {verb} {kind}{f' --subresource={part}' if part else ''} -n {self.namespace}"
        needed = " (exec needs `get` and `create`)" if part == "exec" else ""
        return f"ask for the permission to {verb} {resource} there{needed}, and check it with `{check}`"


class KubeNotFound(KubeAnswer):
    """404: no such pod or namespace."""

    @property
    def next_step(self) -> str:
        """Where to look."""
        return "the pod may have been replaced: see `kubectl get pods`, and choose with -n and -l"


class ExecNotSupported(KubeError):
    """The API server does not know the version of the exec channel that this program speaks."""

    server: str
    sentence = (
        "the API server {server} is too old: `kubectl spool` needs Kubernetes 1.30 or later; `kubectl version` shows "
        "the server's, and a proxy in between may be what is old"
    )


class PodReplaced(KubeError):
    """The pod that was worked with is no more, or is going: another one takes its place."""

    pod: str
    sentence = (
        "pod {pod} was replaced in the middle of the work, and what came from a pipe cannot be read again; "
        "start again, or save it to a file first"
    )


class NoPod(KubeError):
    """No pod to talk to: none carries the label, none of those runs, or none of them is `pod`."""

    selector: str
    namespace: str
    states: tuple[str, ...] = ()
    _: KW_ONLY
    pod: str | None = None

    def __post_init__(self) -> None:
        self.temporary = bool(self.states)

    def _sentence(self) -> str:
        pods = f"pods -n {self.namespace} -l {self.selector}"
        if self.pod is not None:
            return (
                f"namespace {self.namespace} has no running pod {self.pod!r} with the label {self.selector}; "
                f"see `kubectl get {pods}`"
            )
        if self.states:
            return (
                f"no pod of {self.selector!r} is running in namespace {self.namespace} ({', '.join(self.states)}); "
                f"see `kubectl describe {pods}`"
            )
        return (
            f"namespace {self.namespace} has no pod with the label {self.selector!r}; choose with -n and -l, "
            "or install one with `kubectl spool install`"
        )


class NoContainer(KubeError):
    """The pod has no container of that name."""

    container: str
    pod: str
    containers: tuple[str, ...]

    def _sentence(self) -> str:
        has = ", ".join(self.containers)
        return f"pod {self.pod} has no container {self.container!r}; choose one with -c, it has: {has}"


class NoWorkload(KubeError):
    """No workload, or none of its containers, can be given an image as the user asked for."""

    reason: str
    sentence = "{reason}"


class RolloutFailed(KubeError):
    """A workload has a new image, and its pods do not run it. `events` and `log` are of `pod`, if there is one."""

    workload: str
    namespace: str
    reason: str
    _: KW_ONLY
    pod: str = ""
    events: tuple[str, ...] = ()
    log: tuple[str, ...] = ()

    sentence = (
        "{workload} got the new image, but its pods did not become ready: {reason}; "
        "`kubectl rollout undo {workload} -n {namespace}` undoes it"
    )


class NoPullHost(KubeError):
    """It is not known how nodes reach the registry, so that no pod can be told to pull from it."""

    sentence = (
        "nothing was sent: where nodes pull from is not known. The spooler has no --pull-host, and there is no "
        "ConfigMap local-registry-hosting in kube-public; docs/nodes.md explains how to set it"
    )


class ExecCut(KubeError):
    """The connection to a running command ended before the command did, or fell silent."""

    pod: str
    reason: str
    temporary = True
    sentence = "the connection to pod {pod} was lost: {reason}; try again, nothing that arrived is lost"


class ExecNotStarted(KubeError):
    """The pod's runtime could not start the command."""

    pod: str
    container: str
    program: str
    message: str
    sentence = (
        "pod {pod} cannot run {program} in container {container}: {message}; "
        "choose the spooler's container with -c, or update it with `kubectl spool install`"
    )


class RemoteError(KubeError):
    """A command in the pod failed, and said why. `kind` is the name of its error class."""

    message: str
    _: KW_ONLY
    exit_code: int
    kind: str = ""
    temporary: bool = False
    detail: str = ""
    """What the pod said beyond the sentence."""

    sentence = "{message}"


class NotTheImage(KubeError):
    """What the pod sent is not what it was asked for, though it says that all went well."""

    pod: str
    reference: str
    reason: str
    sentence = "what pod {pod} sent is not {reference}: {reason}; do not use what came of it, and see what runs there"


def answer_error(
    status: int, asked: str, namespace: str, message: str = "", *, permission: str = "", was_granted: bool = False
) -> KubeAnswer:
    """The error for a status; the message is cut to what fits a line.

    `was_granted`: the same was allowed a moment ago. An API server that has just started refuses everything to all but
    administrators until it knows the roles.
    """
    message = " ".join(message.split())[:300]
    if status == 403:
        error: KubeAnswer = KubeForbidden(status, asked, namespace, message, permission=permission)
    else:
        kinds = {401: KubeLoginRejected, 404: KubeNotFound}
        error = kinds.get(status, KubeAnswer)(status, asked, namespace, message)
    if was_granted and status in (401, 403):
        error.temporary = True
    return error

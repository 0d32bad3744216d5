"""What can go wrong between the user and the pod: the branch of the error tree for the cluster.

Each sentence ends with what to do next, because the person who reads it is rarely the one who set
the cluster up.
"""

from __future__ import annotations

import re
from typing import Final

from registry_spooler.errors import SpoolerError


class KubeError(SpoolerError):
    """Something between us and the pod."""


class KubeConfigurationError(KubeError):
    """No kubeconfig, or one that does not say how to reach a cluster."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}; give --kubeconfig or --context, or see `kubectl config get-contexts`"


class KubeUnreachable(KubeError):
    """The API server does not answer: refused, reset, timed out, name not resolved, TLS not agreed on."""

    temporary = True

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(server, reason)
        self.server = server
        self.reason = reason

    def __str__(self) -> str:
        return f"the cluster's API server {self.server} cannot be reached: {self.reason}; try `kubectl cluster-info`"


_REFUSED: Final = re.compile(r'cannot ([a-z]+) resource "([a-z]+(?:/[a-z]+)?)"')
"""https://github.com/kubernetes/apiserver/blob/master/pkg/endpoints/handlers/responsewriters/errors.go"""


_JUST_STARTED: Final = "it was allowed a moment ago, so the server may have just started"


class KubeAnswer(KubeError):
    """The API server refused a request. `asked` is what we wanted, such as `exec in pod spooler-0`."""

    _TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})

    def __init__(self, status: int, asked: str, namespace: str, message: str = "") -> None:
        super().__init__(status, asked, namespace)
        self.status = status
        self.asked = asked
        self.namespace = namespace
        self.message = message
        self.temporary = status in self._TEMPORARY

    @property
    def next_step(self) -> str:
        """What the user can do about it; ends the sentence."""
        return "`kubectl spool doctor` looks into it"

    def __str__(self) -> str:
        said = f" ({self.message})" if self.message else ""
        asked = f"{self.asked} in namespace {self.namespace}"
        return f"the API server answered {self.status} to {asked}{said}; {self.next_step}"


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

    def __init__(self, status: int, asked: str, namespace: str, message: str = "", *, permission: str = "") -> None:
        super().__init__(status, asked, namespace, message)
        self.permission = permission

    @property
    def next_step(self) -> str:
        """Which permission to ask for, and how to check it: what the server says is missing, or else what we know."""
        if self.temporary:
            return _JUST_STARTED
        said = _REFUSED.search(self.message)
        verb, resource = (said[1], said[2]) if said else (*self.permission.split(), "", "")[:2]
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


class KubeConflict(KubeAnswer):
    """409: somebody else changed the object at the same time."""

    temporary = True

    @property
    def next_step(self) -> str:
        """Again."""
        return "somebody changed it at the same time: try again"


class PodReplaced(KubeError):
    """The pod that was worked with is no more, or is going: another one takes its place."""

    def __init__(self, pod: str) -> None:
        super().__init__(pod)
        self.pod = pod

    def __str__(self) -> str:
        return (
            f"pod {self.pod} was replaced in the middle of the work, and what came from a pipe cannot be read again; "
            "start again, or save it to a file first"
        )


class NoPod(KubeError):
    """No pod to talk to: none carries the label, none of those runs, or none of them is `pod`."""

    def __init__(self, selector: str, namespace: str, states: tuple[str, ...] = (), *, pod: str | None = None) -> None:
        super().__init__(selector, namespace, states, pod)
        self.pod = pod
        self.selector = selector
        self.namespace = namespace
        self.states = states
        self.temporary = bool(states)

    def __str__(self) -> str:
        if self.pod is not None:
            return (
                f"namespace {self.namespace} has no running pod {self.pod!r} with the label {self.selector}; "
                f"see `kubectl get pods -n {self.namespace} -l {self.selector}`"
            )
        if self.states:
            found = ", ".join(self.states)
            return (
                f"no pod of {self.selector!r} is running in namespace {self.namespace} ({found}); "
                f"see `kubectl describe pods -n {self.namespace} -l {self.selector}`"
            )
        return (
            f"namespace {self.namespace} has no pod with the label {self.selector!r}; choose with -n and -l, "
            "or install one with `kubectl spool install`"
        )


class NoContainer(KubeError):
    """The pod has no container of that name."""

    def __init__(self, container: str, pod: str, containers: tuple[str, ...]) -> None:
        super().__init__(container, pod, containers)
        self.container = container
        self.pod = pod
        self.containers = containers

    def __str__(self) -> str:
        has = ", ".join(self.containers)
        return f"pod {self.pod} has no container {self.container!r}; choose one with -c, it has: {has}"


class ExecCut(KubeError):
    """The connection to a running command ended before the command did, or fell silent."""

    temporary = True

    def __init__(self, pod: str, reason: str) -> None:
        super().__init__(pod, reason)
        self.pod = pod
        self.reason = reason

    def __str__(self) -> str:
        return f"the connection to pod {self.pod} was lost: {self.reason}; try again, nothing that arrived is lost"


class ExecNotStarted(KubeError):
    """The pod's runtime could not start the command."""

    def __init__(self, pod: str, container: str, program: str, message: str) -> None:
        super().__init__(pod, container, program, message)
        self.pod = pod
        self.container = container
        self.program = program
        self.message = message

    def __str__(self) -> str:
        return (
            f"pod {self.pod} cannot run {self.program} in container {self.container}: {self.message}; "
            "choose the spooler's container with -c, or update it with `kubectl spool install`"
        )


class RemoteError(KubeError):
    """A command in the pod failed, and said why. `kind` is the name of its error class."""

    def __init__(
        self, sentence: str, *, exit_code: int, kind: str = "", temporary: bool = False, detail: str = ""
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.exit_code = exit_code
        self.kind = kind
        self.temporary = temporary
        self.said = detail

    @property
    def detail(self) -> str:
        """What the pod said beyond the sentence."""
        return self.said

    def __str__(self) -> str:
        return self.sentence


class NotTheImage(KubeError):
    """What the pod sent is not what it was asked for, though it says that all went well."""

    def __init__(self, pod: str, reference: str, reason: str) -> None:
        super().__init__(pod, reference, reason)
        self.pod = pod
        self.reference = reference
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"what pod {self.pod} sent is not {self.reference}: {self.reason}; do not use what came of it, "
            "and see what runs there"
        )


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
        kinds = {401: KubeLoginRejected, 404: KubeNotFound, 409: KubeConflict}
        error = kinds.get(status, KubeAnswer)(status, asked, namespace, message)
    if was_granted and status in (401, 403):
        error.temporary = True
    return error

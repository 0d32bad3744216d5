"""`kubectl spool push --set`: the image that was pushed runs, or it is said why not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry_spooler.kubernetes.api import Cluster
from registry_spooler.kubernetes.cluster_errors import KubeAnswer, NoWorkload
from registry_spooler.kubernetes.objects.rollouts import label_selector, pod_trouble, rollout_state
from registry_spooler.kubernetes.objects.workloads import (
    CRON_JOB,
    DAEMON_SET,
    DEPLOYMENT,
    STATEFUL_SET,
    WorkloadChoice,
    WorkloadKind,
    find_workloads,
)
from support.cluster.apiserver import ApiServer
from support.cluster.terminal import Terminal
from support.images import archives
from support.images.archive_parts import Image, layer
from support.programs.running_spooler import RunningSpooler, Spool
from support.registries.running_registry import RunningRegistry
from support.registries.verify import Reader

HOST = "127.0.0.1:5001"
HOSTING = {"data": {"localRegistryHosting.v1": f'hostFromContainerRuntime: "{HOST}"\nhost: "localhost:5001"\n'}}


@pytest.fixture
def pod(api: ApiServer, registry: RunningRegistry) -> ApiServer:
    """A pod whose registry is where everybody is told that it is, and a deployment `web`."""
    api.registry = registry.url
    api.workloads.config_map = HOSTING
    api.workloads.add("deployments", "web")
    return api


@pytest.fixture
def terminal(tmp_path: Path, kubeconfig: Path, repository: str) -> Terminal:
    (tmp_path / "app.tar").write_bytes(archives.podman_docker(Image(layers=(layer(repository),))))
    return Terminal(tmp_path, kubeconfig)


async def test_a_deployment_runs_what_was_pushed(
    terminal: Terminal, pod: ApiServer, repository: str, registry: RunningRegistry
) -> None:
    started = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 1}
    pod.workloads.rolls["deployments/web"] = [
        {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1},
        started,
        {**started, "replicas": 1},
    ]

    done = await terminal.spool("push", "app.tar", f"{repository}:1", "--set", "deployment/web")

    image = f"{HOST}/{repository}:1@{Reader(registry).image(repository, '1').digest}"
    assert ([image], image) == (done.lines, pod.workloads.image("deployments/web", "web"))
    told = [line.partition("deployment/web: ")[2] for line in done.stderr.splitlines() if "deployment/web: " in line]
    assert [
        "the cluster has not begun",
        "1 of 1 pods updated, 1 available, 1 old",
        "1 of 1 pods updated, 1 available",
    ] == told
    (change,) = pod.workloads.patches
    assert {"containers": [{"name": "web", "image": image}]} == change[1]["spec"]["template"]["spec"]
    kinds = [request.partition(" ")[0] if "PATCH" in request else request[-5:] for request in pod.requests]
    assert ["PATCH", "PATCH"] == [kind for kind in kinds if kind == "PATCH"]
    sent = max(at for at, kind in enumerate(kinds) if kind == "/exec")
    assert kinds.index("PATCH") < sent < len(kinds) - 1 - kinds[::-1].index("PATCH")


async def test_several_workloads_of_all_kinds(
    terminal: Terminal, pod: ApiServer, repository: str, registry: RunningRegistry
) -> None:
    labels = {"part": "all"}
    for kind, name in (("statefulsets", "db"), ("daemonsets", "agent"), ("cronjobs", "nightly"), ("deployments", "x")):
        pod.workloads.add(kind, name, "main", "side", labels=labels if name != "x" else None)
    pod.workloads.objects["daemonsets/agent"]["status"] |= {
        "desiredNumberScheduled": 1,
        "updatedNumberScheduled": 1,
        "numberAvailable": 1,
    }

    done = await terminal.spool(
        "push", "app.tar", f"{repository}:1", "--set", "part=all:main", "--set", "deploy/web", "--json"
    )

    image = f"{HOST}/{repository}:1@{done.json['digest']}"
    titles = [entry["workload"] for entry in done.json["set"]]
    assert ["daemonset/agent", "deployment/web", "statefulset/db", "cronjob/nightly"] == titles
    for key in ("statefulsets/db", "daemonsets/agent", "cronjobs/nightly"):
        assert (image, "old:1") == (pod.workloads.image(key, "main"), pod.workloads.image(key, "side"))
    assert "old:1" == pod.workloads.image("deployments/x", "main")


async def test_the_spooler_says_where_nodes_pull_from(
    terminal: Terminal, pod: ApiServer, repository: str, registry: RunningRegistry, spool: Path
) -> None:
    pod.workloads.config_map = None
    with RunningSpooler(Spool(spool), registry.url, "--pull-host", "nodes.example:5000") as spooler:
        pod.health_port = int(spooler.health_url.rpartition(":")[2])
        await terminal.spool("push", "app.tar", f"{repository}:1", "--set", "deploy/web")
    assert pod.workloads.image("deployments/web", "web").startswith(f"nodes.example:5000/{repository}:1@sha256:")


CRASHED = {
    "containerStatuses": [
        {
            "name": "web",
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}},
            "lastState": {"terminated": {"exitCode": 3}},
        }
    ]
}


async def test_a_rollout_that_fails_says_why(
    terminal: Terminal, pod: ApiServer, repository: str, registry: RunningRegistry, tmp_path: Path
) -> None:
    (digest,) = (await terminal.spool("push", "app.tar", f"{repository}:1")).lines
    workloads = pod.workloads
    workloads.rolls["deployments/web"] = [{"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1}]
    workloads.add_pod("web-old", "old:1", {"app": "web"}, CRASHED)
    workloads.add_pod("web-new", f"{HOST}/{repository}:1@{digest}", {"app": "web"}, CRASHED)
    workloads.events["web-new"] = [{"reason": "BackOff", "message": "Back-off restarting failed\n container"}] * 2
    workloads.logs["web-new"] = "starting\nno configuration\x1b[2J\n"

    done = await terminal.spool("push", "app.tar", f"{repository}:1", "--set", "deployment/web", code=1)

    assert [f"{HOST}/{repository}:1@{digest}"] == done.lines
    assert [
        "pod web-new, events:",
        "  BackOff: Back-off restarting failed container",
        "pod web-new, last lines of the log:",
        "  starting",
        r"  no configuration\x1b[2J",
        "deployment/web got the new image, but its pods did not become ready: pod web-new, container web: "
        "CrashLoopBackOff: "
        "back-off 10s restarting failed container (it ended with exit code 3); "
        "`kubectl rollout undo deployment/web -n registry` undoes it",
    ] == [line.removeprefix("kubectl spool: ") for line in done.stderr.splitlines()[-6:]]


async def test_waiting_ends(terminal: Terminal, pod: ApiServer, repository: str) -> None:
    pod.workloads.rolls["deployments/web"] = [{"observedGeneration": 2, "replicas": 2, "updatedReplicas": 1}]
    command = ("push", "app.tar", f"{repository}:1", "--set", "deployment/web")
    done = await terminal.spool(*command, "--set-timeout", "0.1", "--json", code=1)
    (entry,) = done.json["set"]
    assert "it is not complete after 0.1 s (1 of 1 pods updated, 0 available, 1 old)" in entry["error"]


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ("deployment/api", "namespace registry has no deployment 'api'; see `kubectl get deployments -n registry`"),
        ("deploy/web:api", "deployment/web has no container 'api'; it has: web"),
        ("sts/two", "statefulset/two has several containers, main, side; write sts/two:CONTAINER"),
        ("deploy/paused", "`kubectl rollout resume deployment/paused -n registry` ends that"),
        ("app=other", "no workload whose pods are labelled 'app=other'"),
    ],
)
async def test_workloads_that_cannot_be_set(pod: ApiServer, cluster: Cluster, choice: str, sentence: str) -> None:
    pod.workloads.add("statefulsets", "two", "main", "side")
    pod.workloads.add("deployments", "paused", paused=True)
    with pytest.raises(NoWorkload) as caught:
        await find_workloads(cluster, WorkloadChoice.parse(choice))
    assert sentence in str(caught.value)


async def test_what_cannot_be_set_is_told_before_anything_is_sent(
    terminal: Terminal, pod: ApiServer, repository: str
) -> None:
    push = ("push", "app.tar", f"{repository}:1", "--set", "deploy/web")
    done = await terminal.spool(*push, "--set-namespace", "shop", code=3)
    assert "namespace shop has no deployment 'web'" in done.stderr
    assert "'pod/web' is not a workload" in (await terminal.spool(*push, "--set", "pod/web", code=2)).stderr
    assert not [running for running in pod.executions if "receive" in running.command]


async def test_who_may_not_patch_is_told_before_anything_is_sent(
    terminal: Terminal, pod: ApiServer, repository: str
) -> None:
    message = 'User "me" cannot patch resource "deployments" in API group "apps"'
    pod.refuse("PATCH /apis/apps/v1/namespaces/registry/deployments/web", 403, message)
    done = await terminal.spool("push", "app.tar", f"{repository}:1", "--set", "deployment/web", code=4)
    assert "check it with `kubectl auth can-i patch deployments -n registry`" in done.stderr
    assert not [running for running in pod.executions if "receive" in running.command]


async def test_a_webhook_without_dry_runs_is_no_refusal(pod: ApiServer, cluster: Cluster) -> None:
    (workload,) = await find_workloads(cluster, WorkloadChoice.parse("deploy/web"))
    pod.refuse("PATCH /apis/apps/v1/namespaces/registry/deployments/web", 400, 'webhook "x" does not support dry run')
    await workload.check_right(cluster)
    pod.refuse("PATCH /apis/apps/v1/namespaces/registry/deployments/web", 422, "no")
    with pytest.raises(KubeAnswer):
        await workload.check_right(cluster)


async def test_nobody_knows_where_nodes_pull_from(terminal: Terminal, pod: ApiServer, repository: str) -> None:
    pod.workloads.config_map = None
    done = await terminal.spool("push", "app.tar", f"{repository}:1", "--set", "deployment/web", code=1)
    assert "nothing was sent: where nodes pull from is not known" in done.stderr
    assert not [running for running in pod.executions if "receive" in running.command]


async def test_a_push_that_fails_changes_nothing(terminal: Terminal, pod: ApiServer, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no archive")
    await terminal.spool("push", "bad.tar", "app:1", "--set", "deployment/web", code=1)
    done = await terminal.spool("push", "app.tar", "./app.tar", "--set", "deployment/web", code=2)
    assert "--set goes with a single FILE or IMAGE that is one image" in done.stderr
    assert [] == pod.workloads.patches


def _states() -> Iterator[tuple[WorkloadKind, dict[str, Any], dict[str, Any], str, bool]]:
    """Kind, spec, status, the text, and whether it is done."""
    seen = {"observedGeneration": 5}
    yield DEPLOYMENT, {"replicas": 0}, {}, "the cluster has not begun", False
    yield DEPLOYMENT, {"replicas": 0}, seen, "0 of 0 pods updated, 0 available", True
    status = {**seen, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 2}
    yield DEPLOYMENT, {"replicas": 3}, status, "3 of 3 pods updated, 2 available", False
    yield DEPLOYMENT, {"replicas": 3}, {**status, "availableReplicas": 3}, "3 of 3 pods updated, 3 available", True
    counts = {"desiredNumberScheduled": 2, "updatedNumberScheduled": 1, "numberAvailable": 2}
    yield DAEMON_SET, {}, {**seen, **counts}, "1 of 2 pods updated, 2 available", False
    yield DAEMON_SET, {}, {**seen, **counts, "updatedNumberScheduled": 2}, "2 of 2 pods updated, 2 available", True
    on_delete = {"updateStrategy": {"type": "OnDelete"}}
    yield DAEMON_SET, on_delete, {}, "each pod gets the image when it is deleted (OnDelete)", True
    rolling = {"replicas": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}
    status = {**seen, "availableReplicas": 3, "updatedReplicas": 1, "currentRevision": "a", "updateRevision": "b"}
    yield STATEFUL_SET, rolling, status, "2 of 3 pods updated, 3 available", False
    yield STATEFUL_SET, rolling, {**status, "updatedReplicas": 2}, "3 of 3 pods updated, 3 available", True
    finished = {**seen, "availableReplicas": 3, "currentRevision": "b", "updateRevision": "b"}
    yield STATEFUL_SET, {"replicas": 3}, finished, "3 of 3 pods updated, 3 available", True
    yield CRON_JOB, {}, {}, "the next job runs the image", True


@pytest.mark.parametrize(("kind", "spec", "status", "text", "is_done"), list(_states()))
def test_how_far_a_rollout_is(
    kind: WorkloadKind, spec: dict[str, Any], status: dict[str, Any], text: str, is_done: bool
) -> None:
    state = rollout_state(kind, {"metadata": {"generation": 5}, "spec": spec, "status": status})
    assert (text, is_done, "") == (state.text, state.is_done, state.failure)


@pytest.mark.parametrize(
    "condition",
    [
        {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "no progress"},
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "no progress"},
    ],
)
def test_a_rollout_that_its_controller_gave_up(condition: dict[str, str]) -> None:
    healthy = {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}
    status = {"observedGeneration": 1, "conditions": [healthy, condition]}
    assert "no progress" == rollout_state(DEPLOYMENT, {"metadata": {"generation": 1}, "status": status}).failure


def test_a_pod_that_waits_for_a_node_is_not_stuck() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
    trouble = pod_trouble({"metadata": {"name": "web-1"}, "status": {"conditions": [condition]}})
    assert trouble is not None
    assert ("pod web-1: no node takes it: 0/1 nodes are available", False) == (str(trouble), trouble.is_stuck)


def test_selectors_are_written_as_queries() -> None:
    expressions = [
        {"key": "tier", "operator": "In", "values": ["a", "b"]},
        {"key": "old", "operator": "NotIn", "values": ["c"]},
        {"key": "x", "operator": "Exists"},
        {"key": "y", "operator": "DoesNotExist"},
    ]
    selector = {"matchLabels": {"app": "web"}, "matchExpressions": expressions}
    assert "app=web,tier in (a,b),old notin (c),x,!y" == label_selector(selector)


@pytest.mark.parametrize(
    ("text", "kind", "name", "labels", "container"),
    [
        ("deployment/web", DEPLOYMENT, "web", (), ""),
        ("deployments.apps/web:main", DEPLOYMENT, "web", (), "main"),
        ("StatefulSet/db", STATEFUL_SET, "db", (), ""),
        ("cj/nightly", CRON_JOB, "nightly", (), ""),
        (
            "app.kubernetes.io/name=web:main",
            None,
            "app.kubernetes.io/name=web",
            (("app.kubernetes.io/name", "web"),),
            "main",
        ),
        ("ds/app=web,tier=", DAEMON_SET, "", (("app", "web"), ("tier", "")), ""),
    ],
)
def test_how_a_workload_is_written(
    text: str, kind: WorkloadKind | None, name: str, labels: tuple[tuple[str, str], ...], container: str
) -> None:
    choice = WorkloadChoice.parse(text)
    assert (kind, labels, container) == (choice.kind, choice.labels, choice.container)
    assert labels or name == choice.name


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("pod/web", "'pod/web' is not a workload; write KIND/NAME[:CONTAINER] with one of deployment, statefulset"),
        ("web", "'web' is not a workload"),
        ("deploy/web:", "'' is not the name of a container"),
        ("a=b,c", "'c' is not a label; write LABEL=VALUE"),
    ],
)
def test_what_names_no_workload(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        WorkloadChoice.parse(text)
    assert sentence in str(caught.value)

"""Which pod and which container."""

from __future__ import annotations

from typing import Any

import pytest

from registry_spooler.kubernetes.api import Cluster
from registry_spooler.kubernetes.cluster_errors import KubeForbidden, NoContainer, NoPod
from registry_spooler.kubernetes.pods import SELECTOR, Container, find_containers, read_log
from registry_spooler.kubernetes.remote_session import PodSession
from support.cluster.apiserver import ApiServer


async def test_those_that_run(cluster: Cluster, api: ApiServer) -> None:
    api.pods = ("spooler-b", "spooler-a", "spooler-c")
    api.changes = {"spooler-c": {"status": {"phase": "Pending"}}}
    image = "registry-spooler:1"
    expected = tuple(Container(name, "spooler", image, f"uid-of-{name}") for name in ("spooler-a", "spooler-b"))
    assert expected == await find_containers(cluster)


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"status": {"phase": "Pending"}}, "spooler-0: Pending"),
        (
            {
                "status": {
                    "phase": "Pending",
                    "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}],
                }
            },
            "spooler-0: ImagePullBackOff",
        ),
        ({"metadata": {"name": "spooler-0", "deletionTimestamp": "2024-01-01T00:00:00Z"}}, "spooler-0: Terminating"),
    ],
)
async def test_none_that_runs(cluster: Cluster, api: ApiServer, change: dict[str, Any], state: str) -> None:
    api.changes = {"spooler-0": change}
    with pytest.raises(NoPod) as caught:
        await find_containers(cluster)
    assert (state,) == caught.value.states
    assert caught.value.temporary
    assert f"({state})" in str(caught.value)


async def test_none_at_all(cluster: Cluster) -> None:
    with pytest.raises(NoPod, match="kubectl spool install") as caught:
        await find_containers(cluster, "app=other")
    assert not caught.value.temporary


async def test_none_of_that_name(cluster: Cluster) -> None:
    with pytest.raises(NoPod) as caught:
        await PodSession(cluster, SELECTOR, "spooler", pod="spooler-7").remote()
    assert not caught.value.temporary
    assert (
        f"namespace registry has no running pod 'spooler-7' with the label {SELECTOR}; "
        f"see `kubectl get pods -n registry -l {SELECTOR}`"
    ) == str(caught.value)


async def test_a_sidecar_may_be_an_init_container(cluster: Cluster, api: ApiServer) -> None:
    api.changes = {"spooler-0": {"spec": {"containers": [], "initContainers": [{"name": "spooler", "image": "x"}]}}}
    assert (Container("spooler-0", "spooler", "x", "uid-of-spooler-0"),) == await find_containers(cluster)


async def test_no_such_container(cluster: Cluster) -> None:
    with pytest.raises(NoContainer, match="choose one with -c, it has: registry, spooler"):
        await find_containers(cluster, SELECTOR, "other")


async def test_the_log(cluster: Cluster, api: ApiServer, container: Container) -> None:
    long = "x" * 300_000
    api.log = f"one\ntwo ü\n{long}\nlast".encode()
    assert ["one", "two ü", long, "last"] == [
        line async for line in read_log(cluster, container, follow=False, lines=5)
    ]


async def test_a_log_that_is_not_for_us(cluster: Cluster, api: ApiServer, container: Container) -> None:
    api.refuse("/log", 403, "no")
    with pytest.raises(KubeForbidden, match="kubectl auth can-i get pods --subresource=log"):
        [line async for line in read_log(cluster, container, follow=True, lines=5)]

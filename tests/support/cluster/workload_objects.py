"""Workloads, their pods, events and logs, as far as a rollout is followed in them.

A test says what the controllers would make of a patch: `rolls` has the statuses that the object shows one after the
other each time it is read afterwards, and `pods` what runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

ALL_DONE = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}


@dataclass
class WorkloadObjects:
    """All that is in one namespace."""

    namespace: str = "registry"
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By the end of the path: `deployments/web`."""
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """Of pods, by name."""
    logs: dict[str, str] = field(default_factory=dict)
    config_map: dict[str, Any] | None = None
    """`local-registry-hosting`."""
    patches: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Those that were carried out."""
    rolls: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Statuses to come, by the object; the last one stays."""

    def add(self, kind: str, name: str, *containers: str, labels: dict[str, str] | None = None, **spec: Any) -> None:
        """Add a workload whose rollouts are done as soon as they are asked for."""
        labels = labels or {"app": name}
        pod = {"containers": [{"name": container, "image": "old:1"} for container in containers or (name,)]}
        template = {"metadata": {"labels": labels}, "spec": pod}
        whole = {"template": template, "selector": {"matchLabels": labels}, **spec}
        if kind == "cronjobs":
            whole = {"jobTemplate": {"spec": {"template": template}}, **spec}
        status = {"observedGeneration": 1, **ALL_DONE}
        metadata = {"name": name, "namespace": self.namespace, "generation": 1}
        self.objects[f"{kind}/{name}"] = {"metadata": metadata, "spec": whole, "status": status}

    def add_pod(self, name: str, image: str, labels: dict[str, str], status: dict[str, Any]) -> None:
        """Add a pod whose container is called as its label `app` says."""
        containers = [{"name": labels["app"], "image": image}]
        self.pods[name] = {
            "metadata": {"name": name, "labels": labels},
            "spec": {"containers": containers},
            "status": status,
        }

    def image(self, key: str, container: str) -> str:
        """The image that a container of a workload has now."""
        return next(each["image"] for each in _containers(self.objects[key]) if each["name"] == container)

    def labelled(self, selector: str) -> list[dict[str, Any]]:
        """The pods with all the labels of a selector of equalities."""
        wanted = dict(part.split("=", 1) for part in selector.split(",") if "=" in part)
        return [pod for pod in self.pods.values() if wanted.items() <= pod["metadata"]["labels"].items()]

    def log(self, request: web.Request) -> web.Response:
        """What a pod's container wrote."""
        text = self.logs.get(request.match_info["pod"])
        return web.Response(text=text) if text is not None else _not_found("container is waiting to start", 400)

    def add_routes(self, application: web.Application) -> None:
        """Serve it all."""
        path = "/apis/{group}/v1/namespaces/{namespace}/{kind}"
        application.router.add_get(path, self._list)
        application.router.add_get(path + "/{name}", self._get)
        application.router.add_patch(path + "/{name}", self._patch)
        application.router.add_get("/api/v1/namespaces/{namespace}/events", self._events)
        application.router.add_get("/api/v1/namespaces/kube-public/configmaps/local-registry-hosting", self._hosting)

    async def _list(self, request: web.Request) -> web.Response:
        here = request.match_info["namespace"] == self.namespace
        kind = request.match_info["kind"]
        items = [item for key, item in self.objects.items() if here and key.startswith(f"{kind}/")]
        return web.json_response({"items": items})

    async def _get(self, request: web.Request) -> web.Response:
        key, found = self._find(request)
        if found is None:
            return _not_found(f'{request.match_info["kind"]} "{request.match_info["name"]}" not found')
        if self.patches and (statuses := self.rolls.get(key)):
            found["status"] = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        elif self.patches:
            found["status"] = {**found["status"], "observedGeneration": found["metadata"]["generation"]}
        return web.json_response(found)

    async def _patch(self, request: web.Request) -> web.Response:
        assert "application/strategic-merge-patch+json" == request.content_type
        key, found = self._find(request)
        if found is None:
            return _not_found("not found")
        document = await request.json()
        if request.query.get("dryRun") == "All":
            return web.json_response(found)
        self.patches.append((key, document))
        for change in _containers(document):
            (container,) = (each for each in _containers(found) if each["name"] == change["name"])
            container.update(change)
        found["metadata"]["generation"] += 1
        return web.json_response(found)

    async def _events(self, request: web.Request) -> web.Response:
        name = request.query["fieldSelector"].partition("involvedObject.name=")[2].partition(",")[0]
        return web.json_response({"items": self.events.get(name, [])})

    async def _hosting(self, _: web.Request) -> web.Response:
        return web.json_response(self.config_map) if self.config_map else _not_found("not found")

    def _find(self, request: web.Request) -> tuple[str, dict[str, Any] | None]:
        key = f"{request.match_info['kind']}/{request.match_info['name']}"
        return key, self.objects.get(key) if request.match_info["namespace"] == self.namespace else None


def _containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    spec = document["spec"]
    if "jobTemplate" in spec:
        spec = spec["jobTemplate"]["spec"]
    containers: list[dict[str, Any]] = spec["template"]["spec"]["containers"]
    return containers


def _not_found(message: str, code: int = 404) -> web.Response:
    return web.json_response({"kind": "Status", "message": message, "code": code}, status=code)

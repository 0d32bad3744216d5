"""What a fresh cluster holds besides nodes: volumes for claims, and the rights of its DNS."""

from __future__ import annotations

import json
from typing import Any

from localcluster.init import CLUSTER

VOLUMES_PER_NODE = 8
VOLUME_SIZE = "100Gi"
STORAGE_CLASS = "standard"


def initial(nodes: int) -> str:
    """Return the objects as one List in JSON, for `kubectl apply`."""
    items = [_storage_class(), *_dns_rights()]
    for node in range(1, nodes + 1):
        items += [volume(node, at) for at in range(1, VOLUMES_PER_NODE + 1)]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def volume_folder(node: int, number: int) -> str:
    """Return where a volume lies, below the cluster's folder."""
    return f"volumes/node{node}-{number}"


def volume(node: int, number: int) -> dict[str, Any]:
    """Return a volume on a node's disk. It waits for a claim; released, it stays as it is."""
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [f"node{node}"]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"node{node}-{number}"},
        "spec": {
            "storageClassName": STORAGE_CLASS,
            "capacity": {"storage": VOLUME_SIZE},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": f"{CLUSTER}/{volume_folder(node, number)}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


def _storage_class() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def _dns_rights() -> list[dict[str, Any]]:
    name, kind = {"name": "system:coredns"}, "rbac.authorization.k8s.io"
    watch = ["list", "watch"]
    rules = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": watch},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": watch},
    ]
    return [
        {"apiVersion": f"{kind}/v1", "kind": "ClusterRole", "metadata": name, "rules": rules},
        {
            "apiVersion": f"{kind}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": name,
            "roleRef": {"apiGroup": kind, "kind": "ClusterRole", **name},
            "subjects": [{"apiGroup": kind, "kind": "User", **name}],
        },
    ]

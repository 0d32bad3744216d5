"""The command lines and settings of what runs on every node: containerd, kubelet, kube-proxy, the pods' network."""

from __future__ import annotations

import json
from pathlib import Path

from localcluster.control_plane import CERTIFICATES, KUBECONFIGS
from localcluster.init import CLUSTER, PROGRAMS
from localcluster.network import PODS, node_address, pod_network

PAUSE = "registry.k8s.io/pause:3.10"
"""The image that holds a pod's namespaces."""
SOCKET = "/run/containerd/containerd.sock"
PLUGIN_FOLDERS = ("/usr/lib/cni", "/opt/cni/bin")
"""Where Debian's package has the network's plug-ins, and where everybody else has."""


def commands(number: int) -> dict[str, list[str]]:
    """Return the command lines by name, in the order of starting."""
    settings = f"{CLUSTER}/node{number}/settings"
    return {
        "containerd": ["containerd", f"--config={settings}/containerd.toml"],
        "kubelet": [
            f"{PROGRAMS}/kubelet",
            f"--config={settings}/kubelet.json",
            f"--kubeconfig={KUBECONFIGS}/node{number}",
            f"--node-ip={node_address(number)}",
        ],
        "proxy": [f"{PROGRAMS}/kube-proxy", f"--config={settings}/proxy.json"],
    }


def write(folder: Path, number: int, cgroup: str) -> None:
    """Write a node's settings into its folder. `cgroup` is the one below which its pods' are made."""
    settings = folder / "settings"
    (settings / "cni").mkdir(parents=True)
    (settings / "registries").mkdir()
    (settings / "resolv.conf").write_text("")  # no name outside the cluster leads anywhere
    (settings / "containerd.toml").write_text(_containerd(number))
    (settings / "kubelet.json").write_text(json.dumps(_kubelet(number, cgroup), indent=1))
    (settings / "proxy.json").write_text(json.dumps(_proxy(number), indent=1))
    (settings / "cni" / "10-pods.conflist").write_text(json.dumps(_pod_links(number), indent=1))


def _containerd(number: int) -> str:
    plugins = next((path for path in PLUGIN_FOLDERS if Path(path, "bridge").exists()), PLUGIN_FOLDERS[0])
    settings = f"{CLUSTER}/node{number}/settings"
    return f"""
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{settings}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{settings}/registries"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def _kubelet(number: int, cgroup: str) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{CERTIFICATES}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{CERTIFICATES}/node{number}.crt",
        "tlsPrivateKeyFile": f"{CERTIFICATES}/node{number}.key",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [node_address(1)],
        "clusterDomain": "cluster.local",
        "resolvConf": f"{CLUSTER}/node{number}/settings/resolv.conf",
        "nodeStatusUpdateFrequency": "2s",
        # A developer's disk may be nearly full, and no image is ever to be had again.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }


def _proxy(number: int) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "iptables": {"syncPeriod": "5s"},  # after which one that failed is tried again
        "hostnameOverride": f"node{number}",
        "clusterCIDR": PODS,
        "clientConnection": {"kubeconfig": f"{KUBECONFIGS}/proxy"},
        "conntrack": {"maxPerCore": 0},  # these limits are the whole machine's
    }


def _pod_links(number: int) -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": pod_network(number)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "hairpinMode": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}

"""The command lines of etcd, the control plane and the cluster's DNS, all of which run on the first node."""

from __future__ import annotations

from pathlib import Path

from localcluster.init import CLUSTER, PROGRAMS
from localcluster.network import FIRST_SERVICE, SERVICES, node_address

CERTIFICATES = f"{CLUSTER}/certificates"
KUBECONFIGS = f"{CLUSTER}/kubeconfig"
CLIENTS = {
    "controller-manager": ("system:kube-controller-manager", ()),
    "scheduler": ("system:kube-scheduler", ()),
    "proxy": ("system:kube-proxy", ()),
    "dns": ("system:coredns", ()),
    "apiserver-to-kubelet": ("kube-apiserver-kubelet-client", ("system:masters",)),
}
"""Who asks the API server or a kubelet: the user and the groups, by the name of the certificate."""
APISERVER_HOSTS = ("localhost", "kubernetes.default.svc", "127.0.0.1", node_address(1), FIRST_SERVICE)

COREFILE = f"""
.:53 {{
  bind {node_address(1)}
  errors
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {KUBECONFIGS}/dns local
    pods insecure
  }}
}}
"""


def commands() -> dict[str, list[str]]:
    """Return the command lines by name, in the order of starting."""
    return {
        "etcd": _etcd(),
        "apiserver": _apiserver(),
        "controller-manager": [
            f"{PROGRAMS}/kube-controller-manager",
            f"--kubeconfig={KUBECONFIGS}/controller-manager",
            f"--service-account-private-key-file={CERTIFICATES}/accounts.key",
            f"--root-ca-file={CERTIFICATES}/ca.crt",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        ],
        "scheduler": [
            f"{PROGRAMS}/kube-scheduler",
            f"--kubeconfig={KUBECONFIGS}/scheduler",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        ],
        "dns": [f"{PROGRAMS}/coredns", "-conf", f"{CLUSTER}/Corefile"],
    }


def write(folder: Path) -> None:
    """Write the configuration files into the cluster's folder."""
    (folder / "Corefile").write_text(COREFILE)


def _etcd() -> list[str]:
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        "etcd",
        f"--data-dir={CLUSTER}/etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
    ]


def _apiserver() -> list[str]:
    return [
        f"{PROGRAMS}/kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={node_address(1)}",
        f"--client-ca-file={CERTIFICATES}/ca.crt",
        f"--tls-cert-file={CERTIFICATES}/apiserver.crt",
        f"--tls-private-key-file={CERTIFICATES}/apiserver.key",
        f"--kubelet-client-certificate={CERTIFICATES}/apiserver-to-kubelet.crt",
        f"--kubelet-client-key={CERTIFICATES}/apiserver-to-kubelet.key",
        f"--kubelet-certificate-authority={CERTIFICATES}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={CERTIFICATES}/accounts.key",
        f"--service-account-signing-key-file={CERTIFICATES}/accounts.key",
        f"--service-cluster-ip-range={SERVICES}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
    ]

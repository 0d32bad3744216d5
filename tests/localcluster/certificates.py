"""The cluster's certificate authority, what it signs, and the kubeconfigs made of that."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

from localcluster.network import node_address

DAYS = 30
ADMIN_GROUP = "system:masters"
SERVER = f"https://{node_address(1)}:6443"
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """A folder of keys and certificates in PEM: `NAME.crt`, `NAME.key`. The authority's own are called `ca`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> None:
        """Make the authority, and the key that signs service accounts' tokens."""
        self.folder.mkdir(mode=0o700)
        self._openssl("req", "-x509", *NEW_KEY, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=cluster", *_days())
        self._openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "accounts.key")

    def sign(self, name: str, user: str, groups: tuple[str, ...] = (), hosts: tuple[str, ...] = ()) -> None:
        """Make a certificate for a client, and for a server at these hosts (addresses or names)."""
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={user}"
        self._openssl("req", *NEW_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        lines = ["keyUsage=digitalSignature", "extendedKeyUsage=serverAuth,clientAuth"]
        if hosts:
            alternatives = (f"{'IP' if host[0].isdigit() else 'DNS'}:{host}" for host in hosts)
            lines.append(f"subjectAltName={','.join(alternatives)}")
        (self.folder / f"{name}.ext").write_text("\n".join(lines))
        signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", f"{name}.ext")
        self._openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.crt", *_days())

    def kubeconfig(self, name: str) -> str:
        """Return a kubeconfig with the certificates in it, which is valid inside the first node's network."""
        cluster = {"server": SERVER, "certificate-authority-data": self._encoded("ca.crt")}
        user = {
            "client-certificate-data": self._encoded(f"{name}.crt"),
            "client-key-data": self._encoded(f"{name}.key"),
        }
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": name}}],
            "current-context": "local",
        }
        return json.dumps(document, indent=1)

    def _encoded(self, name: str) -> str:
        return base64.b64encode((self.folder / name).read_bytes()).decode()

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


def _days() -> tuple[str, str]:
    return "-days", str(DAYS)

"""Who the user is to the cluster: the one module that knows kubernetes_asyncio.

It reads a kubeconfig (several files merged, contexts, exec plug-ins, OIDC, client certificates, tokens and
their files) or a pod's service account, and hands out what a connection needs: URL, TLS context, headers.
The library is imported when a login is made and not before: it is slow to import, and `--help` needs none of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from registry_spooler.aio import in_thread
from registry_spooler.kubernetes.cluster_errors import KubeConfigurationError
from registry_spooler.text import quoted

if TYPE_CHECKING:
    from kubernetes_asyncio.client import Configuration
    from kubernetes_asyncio.config.kube_config import KubeConfigLoader


_NAME: Final = "kubernetes_asyncio"
_NO_SUCH_ENTRY: Final = re.compile(r"Expected object with name (?P<name>.*) in .*/(?P<kind>context|cluster|user)s list")
_IN_CLUSTER_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(slots=True, kw_only=True)
class ClusterLogin:
    """How to reach one cluster as one user. Made by `log_in`."""

    server: str
    """The API server's URL, without a slash at its end; it may have a path."""
    namespace: str
    tls: ssl.SSLContext | None
    """None for a server that is reached by plain http."""
    proxy: str | None
    server_hostname: str | None
    """The name to check in the server's certificate, where the kubeconfig gives one."""
    _configuration: Configuration = field(repr=False)
    _loader: KubeConfigLoader | None = field(repr=False)

    async def headers(self) -> dict[str, str]:
        """What authorises a request; a service account's token is as fresh as its file."""
        refresh: Any = self._configuration.refresh_api_key_hook
        if refresh is not None:
            await in_thread(refresh, self._configuration)
        token = self._configuration.api_key.get("BearerToken")
        return {"Authorization": token} if token else {}

    async def renew(self) -> None:
        """Ask the kubeconfig's login method again, after the server has refused what it gave."""
        if self._loader is None:
            return
        # The library reuses what a plug-in gave until it expires, but here the server has refused it.
        self._loader.__dict__.pop("exec_plugin_expiry", None)
        await in_thread(_load, self._loader, self._configuration)
        self.tls = await in_thread(_tls, self.server, self._configuration)


async def log_in(
    *, kubeconfig: Path | None = None, context: str | None = None, namespace: str | None = None
) -> ClusterLogin:
    """Read the configuration as kubectl does: the file given, KUBECONFIG, `~/.kube/config`, the pod's own account.

    KubeConfigurationError when there is none, or when it cannot be used.
    """
    return await in_thread(_log_in, kubeconfig, context, namespace)


def _log_in(kubeconfig: Path | None, context: str | None, namespace: str | None) -> ClusterLogin:
    logging.getLogger("kubernetes_asyncio").addHandler(logging.NullHandler())  # errors are raised to us as well
    paths = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG", "") or str(Path.home() / ".kube/config")
    if any(path and Path(path).expanduser().exists() for path in paths.split(os.pathsep)):
        return _from_kubeconfig(paths, context, namespace)
    if kubeconfig is not None or context is not None:
        raise KubeConfigurationError(f"there is no kubeconfig at {paths}")
    return _from_pod(namespace)


@dataclass(frozen=True, slots=True)
class _Library:
    """What is used of kubernetes_asyncio: a class and two modules."""

    configuration: type[Configuration]
    kube_config: Any
    incluster_config: Any


_importing: Final = threading.Lock()
_imported: list[_Library] = []


def _library() -> _Library:
    """Import the library once, in any thread."""
    with _importing:
        if not _imported:
            with nullcontext() if _NAME in sys.modules else _package_stand_ins():
                configuration = import_module(f"{_NAME}.client.configuration").Configuration
                modules = [import_module(f"{_NAME}.config.{name}") for name in ("kube_config", "incluster_config")]
            _imported.append(_Library(configuration, *modules))
    return _imported[0]


@contextmanager
def _package_stand_ins() -> Iterator[None]:
    """Import only what is asked for in the block, not what the library's packages import of themselves.

    Those are 1,300 modules with a class for every kind of object in a cluster: more than half of the time that a
    command takes. Of urllib3 nothing is used when a login is made. Afterwards the library is as if it had never been
    imported, for whoever wants the rest.
    """
    spec = find_spec(_NAME)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {_NAME!r}", name=_NAME)
    for name in (_NAME, f"{_NAME}.client", f"{_NAME}.config"):
        package = ModuleType(name)
        package.__path__ = [os.path.join(path, *name.split(".")[1:]) for path in spec.submodule_search_locations]
        sys.modules[name] = package
    has_urllib3 = sys.modules.setdefault("urllib3", _NO_URLLIB3) is not _NO_URLLIB3
    try:
        client: Any = sys.modules[f"{_NAME}.client"]
        client.Configuration = import_module(f"{_NAME}.client.configuration").Configuration
        client.ApiClient = None  # it is only named by functions that are not used here
        yield
    finally:
        for name in tuple(sys.modules):
            if name == _NAME or name.startswith(f"{_NAME}."):
                del sys.modules[name]
        if not has_urllib3:
            del sys.modules["urllib3"]


_NO_URLLIB3: Final = ModuleType("urllib3")


def _from_kubeconfig(paths: str, context: str | None, namespace: str | None) -> ClusterLogin:
    library = _library()
    configuration = library.configuration()
    try:
        merger = library.kube_config.KubeConfigMerger(paths)
        loader = library.kube_config.KubeConfigLoader(
            config_dict=merger.config,
            config_base_path=None,
            active_context=context,
            config_persister=lambda _: merger.save_changes(),
        )
    except Exception as exc:  # whatever the YAML holds, the library raises anything
        raise KubeConfigurationError(f"the kubeconfig {paths} cannot be used: {_reason(exc)}") from exc
    _load(loader, configuration)
    chosen: Any = loader.current_context
    own = chosen["context"].get("namespace") if chosen else None
    return _login(configuration, loader, namespace or own or "default")


def _load(loader: KubeConfigLoader, configuration: Configuration) -> None:
    """The library reads files between its awaits: it gets an event loop of its own, in this thread."""
    try:
        asyncio.run(loader.load_and_set(configuration))
    except Exception as exc:  # plug-ins, OIDC requests, files: the library raises anything
        raise KubeConfigurationError(f"the login of the kubeconfig does not work: {_reason(exc)}") from exc


def _from_pod(namespace: str | None) -> ClusterLogin:
    library = _library()
    configuration = library.configuration()
    try:
        library.incluster_config.load_incluster_config(client_configuration=configuration)
        own = _IN_CLUSTER_NAMESPACE.read_text().strip() if _IN_CLUSTER_NAMESPACE.exists() else "default"
    except (library.incluster_config.ConfigException, OSError) as exc:
        raise KubeConfigurationError("there is no kubeconfig, and this is no pod of a cluster") from exc
    return _login(configuration, None, namespace or own)


def _login(configuration: Configuration, loader: KubeConfigLoader | None, namespace: str) -> ClusterLogin:
    server = str(configuration.host).rstrip("/")
    return ClusterLogin(
        server=server,
        namespace=namespace,
        tls=_tls(server, configuration),
        proxy=configuration.proxy,
        server_hostname=configuration.tls_server_name,
        _configuration=configuration,
        _loader=loader,
    )


def _tls(server: str, configuration: Configuration) -> ssl.SSLContext | None:
    if not server.startswith("https:"):
        return None
    try:
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
    except (OSError, ValueError) as exc:
        raise KubeConfigurationError(f"the kubeconfig's certificates cannot be read: {_one_line(exc)}") from exc
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # Clusters sign their own certificates, and many lack what the strict mode of Python 3.13 asks for.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _reason(exc: Exception) -> str:
    """What is wrong with a kubeconfig, in words of ours where the library's are about its own insides."""
    if isinstance(exc, AttributeError | IndexError | KeyError | TypeError):
        return "it does not have the form of a kubeconfig"
    reason = _one_line(exc)
    if found := _NO_SUCH_ENTRY.search(reason):
        return f"it has no {found['kind']} named {quoted(found['name'])}"
    return reason


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:300] or type(exc).__name__

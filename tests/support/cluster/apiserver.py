"""A cluster of one pod: as much of the API server as kubectl and we use, each exec a local process.

A process sees the test's spool directory where a container has `/spool`: paths in its arguments are rewritten, and
the environment says so to `registry-client`. As with a real runtime, nobody kills a process whose caller has gone:
its standard input ends and its output goes nowhere.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import ssl
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

import orjson
import trustme
from aiohttp import WSMsgType, web

from support.cluster.pod_daemon import pod_daemon
from support.cluster.workload_objects import WorkloadObjects

V5 = "v5.channel.k8s.io"
UNREAD_BYTES_MAX = 16 << 20
"""What a real runtime buffers of standard input for a command that has ended, before it says nothing more at all."""
STDIN, STDOUT, STDERR, ERROR, CLOSE = 0, 1, 2, 3, 255
SPOOL = re.compile(r"(?<![\w.~-])/spool(?=/|\s|'|\"|$)")
PROGRAMS = Path(sys.executable).parent


@dataclass
class Refusal:
    """An answer in place of the next ones whose path matches."""

    path: str
    status: int
    message: str
    times: int


@dataclass
class FailedStart:
    """A status in place of the next execs: the server has already accepted the connection when it asks the kubelet."""

    message: str
    times: int


@dataclass
class Running:
    """One exec: its command as it was asked for, and its process."""

    command: list[str]
    protocol: str | None
    process: subprocess.Popen[bytes]
    received: int = 0
    """Bytes of its standard input."""
    unread: int = 0
    """What came of it after the command had ended."""
    peak_bytes: int = 0
    """The most memory that it was seen to have, as of some of the messages."""
    _messages: int = 0

    def measure(self) -> None:
        """Look how much memory the process has, every now and then."""
        self._messages += 1
        if self._messages % 64 != 1:
            return
        with suppress(OSError):
            text = Path(f"/proc/{self.process.pid}/status").read_text()
            if found := re.search(r"VmHWM:\s+(\d+) kB", text):
                self.peak_bytes = max(self.peak_bytes, int(found[1]) * 1024)


@dataclass
class ApiServer:
    """Serves on a port of 127.0.0.1 while it is entered."""

    spool: Path
    certificates: Path
    """The folder that `write_certificates` wrote; kubectl sends a token over TLS only."""
    registry: str = ""
    health_port: int = 8086
    protocols: tuple[str, ...] = (V5,)
    namespace: str = "registry"
    pods: tuple[str, ...] = ("spooler-0",)
    token: str = "let-me-in"
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    executions: list[Running] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    last_words: bytes = b""
    """Output that comes behind the status: servers copy the channels side by side."""
    never_closes: bool = False
    """Leave it to the client to close the connection of an exec."""
    log: bytes = b"spooler ready\n"
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What is different about a pod, by its name."""
    agents: set[str] = field(default_factory=set)
    """What the callers call themselves."""
    forgets_status: bool = False
    """Say nothing of the end of a command that has left more than UNREAD_BYTES_MAX of its input unread."""
    workloads: WorkloadObjects = field(default_factory=WorkloadObjects)
    has_daemon: bool = True
    """Let `registry-client` hand its work over, as in a pod, from the first exec on; else it does the work itself."""
    _daemon: asyncio.Task[None] | None = None
    _daemon_waits: asyncio.Event = field(default_factory=asyncio.Event)
    _refusals: list[Refusal] = field(default_factory=list)
    _failed_starts: list[FailedStart] = field(default_factory=list)
    _kubelet_lost: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        application = web.Application(middlewares=[self._gate])
        application.router.add_get("/version", self._version)
        application.router.add_get("/api", self._versions)
        application.router.add_get("/apis", self._groups)
        application.router.add_get("/api/v1", self._resources)
        application.router.add_get("/api/v1/namespaces/{namespace}/pods", self._list)
        application.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}", self._pod)
        application.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/log", self._log)
        application.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/exec", self._exec)
        self.workloads.add_routes(application)
        self._runner = web.AppRunner(application, shutdown_timeout=1, access_log=None)
        await self._runner.setup()
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(self.certificates / "server.pem")
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
        for running in self.executions:
            if running.process.poll() is None:
                running.process.kill()
                await asyncio.to_thread(running.process.wait)
        if self._daemon is not None:
            self._daemon.cancel()
            with suppress(asyncio.CancelledError):
                await self._daemon

    def refuse(self, path: str, status: int, message: str = "", *, times: int = 1) -> None:
        """Answer the next requests for a path that ends so with a `Status` of that code."""
        self._refusals.append(Refusal(path, status, message, times))

    def fail_start(self, message: str, *, times: int = 1) -> None:
        """Accept the next execs, and then say that they could not be started."""
        self._failed_starts.append(FailedStart(message, times))

    def lose_kubelet(self) -> None:
        """End every exec as when its kubelet dies: no more output, and success, since no error came."""
        self._kubelet_lost.set()
        self._kubelet_lost = asyncio.Event()

    async def all_ended(self, seconds: float = 60.0) -> list[int]:
        """Wait for every process to end by itself; their exit codes. TimeoutError when one stays."""
        async with asyncio.timeout(seconds):
            return [await asyncio.to_thread(running.process.wait, seconds) for running in self.executions]

    def kubeconfig(self, path: Path, port: int | None = None, *, user: dict[str, Any] | None = None) -> Path:
        """Write a kubeconfig for this cluster, reached through `port`."""
        cluster = {
            "server": f"https://127.0.0.1:{port or self.port}",
            "certificate-authority-data": base64.b64encode((self.certificates / "ca.pem").read_bytes()).decode(),
        }
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "me", "user": user or {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "me", "namespace": self.namespace}}],
            "current-context": "test",
        }
        path.write_bytes(orjson.dumps(document))
        return path

    @web.middleware
    async def _gate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        self.agents.add(request.headers.get("User-Agent", ""))
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, "Unauthorized")
        for refusal in self._refusals:
            wanted = request.path if refusal.path.startswith("/") else f"{request.method} {request.path}"
            if wanted.endswith(refusal.path) and refusal.times > 0:
                refusal.times -= 1
                return _status(refusal.status, refusal.message)
        namespace = request.match_info.get("namespace", self.namespace)
        pod = request.match_info.get("pod", self.pods[0] if self.pods else "")
        is_workload = namespace == self.workloads.namespace and (not pod or pod in self.workloads.pods)
        is_ours = namespace == self.namespace and (not pod or pod in self.pods)
        if not (is_ours or is_workload or "/apis/" in request.path or namespace == "kube-public"):
            return _status(404, f'pods "{pod}" not found')
        response: web.StreamResponse = await handler(request)
        return response

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"major": "1", "minor": "32", "gitVersion": "v1.32.0"})

    async def _versions(self, _: web.Request) -> web.Response:
        return web.json_response({"kind": "APIVersions", "versions": ["v1"]})

    async def _groups(self, _: web.Request) -> web.Response:
        return web.json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})

    async def _resources(self, _: web.Request) -> web.Response:
        pods = {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"]}
        return web.json_response({"kind": "APIResourceList", "groupVersion": "v1", "resources": [pods]})

    async def _list(self, request: web.Request) -> web.Response:
        selector = request.query.get("labelSelector", "")
        if labelled := self.workloads.labelled(selector):
            return web.json_response({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": labelled})
        found = selector in ("", "app.kubernetes.io/name=registry-spooler")
        items = [self._object(name) for name in self.pods] if found else []
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})

    async def _pod(self, request: web.Request) -> web.Response:
        return web.json_response(self._object(request.match_info["pod"]))

    def _object(self, name: str) -> dict[str, Any]:
        labels = {"app.kubernetes.io/name": "registry-spooler"}
        containers = [{"name": "registry", "image": "registry:2"}, {"name": "spooler", "image": "registry-spooler:1"}]
        return {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {
                "name": name,
                "uid": f"uid-of-{name}",
                "namespace": self.namespace,
                "labels": labels,
                "annotations": {"kubectl.kubernetes.io/default-container": "spooler"},
            },
            "spec": {"containers": containers},
            "status": {"phase": "Running"},
            **self.changes.get(name, {}),
        }

    async def _log(self, request: web.Request) -> web.StreamResponse:
        if request.match_info["pod"] in self.workloads.pods:
            return self.workloads.log(request)
        return web.Response(body=self.log, content_type="text/plain")

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        if "Upgrade" not in request.headers:
            return _status(400, "Upgrade request required")
        if request.query.get("container") not in ("spooler", "registry", None):
            return _status(
                400, f"container {request.query['container']} is not valid for pod {request.match_info['pod']}"
            )
        socket = web.WebSocketResponse(protocols=self.protocols, max_msg_size=0, compress=False)
        await socket.prepare(request)
        for channel in (STDOUT, STDERR, ERROR):
            await socket.send_bytes(bytes((channel,)))
        command = request.query.getall("command")
        try:
            status = self._failed_start() or await self._run(socket, command, request.query.get("stdin") == "true")
        except FileNotFoundError:
            status = _failure("InternalError", f'exec: "{command[0]}": executable file not found in $PATH: unknown')
        with suppress(ConnectionError):
            await socket.send_bytes(bytes((ERROR,)) + orjson.dumps(status))
            if self.last_words:
                await asyncio.sleep(0.1)
                await socket.send_bytes(bytes((STDOUT,)) + self.last_words)
            if self.never_closes:
                await socket.receive()
            await socket.close()
        return socket

    def _failed_start(self) -> dict[str, Any] | None:
        for failed in self._failed_starts:
            if failed.times > 0:
                failed.times -= 1
                return {**_failure("InternalError", failed.message), "code": 500}
        return None

    async def _daemon_is_there(self) -> None:
        if self._daemon is None:
            self._daemon = asyncio.create_task(self._be_daemon())
        await self._daemon_waits.wait()

    async def _be_daemon(self) -> None:
        try:
            async with pod_daemon(self.spool, self.environment_of_exec):
                self._daemon_waits.set()
                await asyncio.Event().wait()
        finally:
            self._daemon_waits.set()

    async def _run(self, socket: web.WebSocketResponse, command: list[str], stdin: bool) -> dict[str, Any]:
        if self.has_daemon and command[0] == "registry-client":
            await self._daemon_is_there()
        process = subprocess.Popen(  # noqa: ASYNC220 - asyncio's own would kill the process with its pipes
            [SPOOL.sub(str(self.spool), argument) for argument in command],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment_of_exec,
            cwd="/",
        )
        running = Running(command, socket.ws_protocol, process)
        self.executions.append(running)
        outputs = asyncio.gather(
            _forward(process.stdout, socket, STDOUT, running), _forward(process.stderr, socket, STDERR, running)
        )
        gone = asyncio.ensure_future(_feed(socket, process.stdin, running))
        lost = asyncio.ensure_future(self._kubelet_lost.wait())
        await asyncio.wait({gone, outputs, lost}, return_when=asyncio.FIRST_COMPLETED)
        ended = outputs.done()
        if ended and self.forgets_status:
            await _wait_for_silence(running)
            if running.unread > UNREAD_BYTES_MAX:
                await gone
        for task in (gone, outputs, lost):
            task.cancel()
        await asyncio.gather(gone, outputs, lost, return_exceptions=True)
        code = await asyncio.to_thread(process.wait) if ended else 0
        if code == 0:
            return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        cause = {"reason": "ExitCode", "message": str(code if code > 0 else 128 - code)}
        failure = _failure("NonZeroExitCode", f"command terminated with non-zero exit code: exit code {code}")
        return {**failure, "details": {"causes": [cause]}}

    @property
    def environment_of_exec(self) -> dict[str, str]:
        """What a process in the pod has."""
        return {
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "HOME": "/nonexistent",
            "REGISTRY_SPOOLER_DIRECTORY": str(self.spool),
            "REGISTRY_SPOOLER_REGISTRY": self.registry,
            "REGISTRY_SPOOLER_HEALTH_PORT": str(self.health_port),
            **self.environment,
        }


async def _forward(pipe: IO[bytes] | None, socket: web.WebSocketResponse, channel: int, running: Running) -> None:
    """What the process writes goes to the caller, as fast as that takes it."""
    assert pipe is not None
    reader = asyncio.StreamReader(limit=64 * 1024)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        while piece := await reader.read(32 * 1024):
            running.measure()
            await socket.send_bytes(bytes((channel,)) + piece)
    finally:
        transport.close()


async def _feed(socket: web.WebSocketResponse, pipe: IO[bytes] | None, running: Running) -> None:
    """What the caller sends goes to the process, as fast as that takes it; returns when the caller has gone."""
    writer = await _writer(pipe) if pipe is not None else None
    try:
        async for message in socket:
            assert message.type is WSMsgType.BINARY
            if message.data[0] == CLOSE:
                if writer is not None and message.data[1] == STDIN:
                    writer.close()
            elif message.data[0] == STDIN and writer is not None:
                running.received += len(message.data) - 1
                running.measure()
                if running.process.poll() is not None:
                    running.unread += len(message.data) - 1
                with suppress(ConnectionError):  # the process has closed its standard input, or ended
                    writer.write(message.data[1:])
                    await writer.drain()
    finally:
        if writer is not None:
            writer.close()


async def _wait_for_silence(running: Running) -> None:
    """Until the caller has sent nothing for a while."""
    seen = -1
    while seen != running.received:
        seen = running.received
        await asyncio.sleep(0.2)


async def _writer(pipe: IO[bytes]) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, pipe)
    return asyncio.StreamWriter(transport, protocol, None, loop)


def write_certificates(folder: Path) -> Path:
    """Write `ca.pem`, and `server.pem` for 127.0.0.1 with its key."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    return folder


def _failure(reason: str, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "reason": reason,
        "message": message,
    }


def _status(code: int, message: str) -> web.Response:
    return web.json_response({**_failure("", message), "code": code}, status=code)

"""The real docker-registry (distribution 2.8), started and ended by the tests.

The registry picks a free port itself and says so in its log: `listening on 127.0.0.1:PORT`. That line is both the
port and the readiness signal, so nothing here guesses a port or sleeps.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.programs.line_log import LineLog

PROGRAM = "/usr/bin/docker-registry"
START_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 10.0
LISTENING = r"listening on 127\.0\.0\.1:(\d+)"


@dataclass(kw_only=True)
class RegistryOptions:
    """What a test may want of a registry; `extra` is merged into its configuration, whatever it holds."""

    deletes: bool = True
    tls: bool = False
    htpasswd: dict[str, str] = field(default_factory=dict)
    """User to password; empty: nobody has to log in."""
    storage: Path | None = None
    """Another folder than the registry's own, to start a second registry on the first one's images."""
    inmemory: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


class RunningRegistry:
    """A registry process. `stop` and `start` again give the same port and, unless `inmemory`, the same images."""

    def __init__(self, folder: Path, options: RegistryOptions, *, port: int = 0) -> None:
        self.folder = folder
        self.options = options
        self.storage = options.storage or folder / "storage"
        self.certificate: Path | None = folder / "ca.pem" if options.tls else None
        self.port = port
        self.log: LineLog | None = None
        self._process: subprocess.Popen[str] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if options.tls:
            self._write_certificates()
        if options.htpasswd:
            lines = (f"{user}:{_bcrypt(password)}\n" for user, password in options.htpasswd.items())
            (folder / "htpasswd").write_text("".join(lines))

    @property
    def host(self) -> str:
        """`127.0.0.1:PORT`, as image names have it."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.options.tls else 'http'}://{self.host}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; returns when it listens."""
        (self.folder / "config.json").write_text(json.dumps(self._configuration()))
        self._process = subprocess.Popen(
            [PROGRAM, "serve", str(self.folder / "config.json")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"},
        )
        assert self._process.stdout is not None
        self.log = LineLog(self._process.stdout)
        try:
            self.port = int(self.log.wait_for(LISTENING, START_TIMEOUT_SECONDS)[1])
        except AssertionError as exc:
            self.stop()
            raise RuntimeError("docker-registry did not start") from exc

    def stop(self) -> None:
        """End the process by its own id; nothing happens when it has ended already."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_SECONDS)
        assert self.log is not None
        self.log.join()
        self._process = None

    def _configuration(self) -> dict[str, Any]:
        # JSON is YAML too, and the first start lets the system choose the port.
        configuration: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "info", "formatter": "text"},
            "storage": {"delete": {"enabled": self.options.deletes}},
            "http": {"addr": f"127.0.0.1:{self.port}", "secret": "only-for-tests"},
        }
        if self.options.inmemory:
            configuration["storage"]["inmemory"] = {}
        else:
            configuration["storage"]["filesystem"] = {"rootdirectory": str(self.storage)}
        if self.options.tls:
            pem = str(self.folder / "server.pem")
            configuration["http"]["tls"] = {"certificate": pem, "key": pem}
        if self.options.htpasswd:
            configuration["auth"] = {"htpasswd": {"realm": "tests", "path": str(self.folder / "htpasswd")}}
        return _merged(configuration, self.options.extra)

    def _write_certificates(self) -> None:
        import trustme  # here, since the demonstration runs without what only tests need

        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.folder / "ca.pem"))
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        certificate.private_key_and_cert_chain_pem.write_to_path(str(self.folder / "server.pem"))


class ForeignRegistry:
    """A registry that somebody else runs, for the same tests (see CONTRIBUTING.md)."""

    certificate: Path | None = None

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.host = self.url.partition("://")[2]


def _bcrypt(password: str) -> str:
    import bcrypt

    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=4)).decode()


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged

"""The real kubectl against the one-pod cluster: what the README tells users to type, to the letter."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from support.cluster.apiserver import V5, ApiServer
from support.cluster.wire import Wire

KUBECTL = "kubectl"


async def kubectl(*arguments: str, kubeconfig: Path, cwd: Path, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "HOME": str(cwd)}
    process = await asyncio.create_subprocess_exec(
        KUBECTL,
        *arguments,
        env=environment,
        cwd=cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, stdout, stderr


async def test_exec_is_a_websocket_of_version_5(api: ApiServer, kubeconfig: Path, tmp_path: Path) -> None:
    arguments = ("exec", "-i", "spooler-0", "-c", "spooler", "--", "head", "-c", "5")
    assert (0, b"hello", b"") == await kubectl(*arguments, kubeconfig=kubeconfig, cwd=tmp_path, stdin=b"hello")
    assert V5 == api.executions[0].protocol


async def test_exit_codes(api: ApiServer, kubeconfig: Path, tmp_path: Path) -> None:
    arguments = ("exec", "spooler-0", "-c", "spooler", "--", "sh", "-c", "exit 3")
    code, _, _ = await kubectl(*arguments, kubeconfig=kubeconfig, cwd=tmp_path)
    assert 3 == code
    assert ["sh", "-c", "exit 3"] == api.executions[0].command


async def test_copy_and_move(api: ApiServer, kubeconfig: Path, tmp_path: Path, wire: Wire) -> None:
    (tmp_path / "app.tar").write_bytes(content := os.urandom(1 << 20))
    copied = await kubectl(
        "cp", "app.tar", "spooler-0:/spool/app.tar~", "-c", "spooler", kubeconfig=kubeconfig, cwd=tmp_path
    )
    assert (0, b"", b"") == copied
    assert content == (api.spool / "app.tar~").read_bytes()
    arguments = ("exec", "spooler-0", "-c", "spooler", "--", "mv", "/spool/app.tar~", r"/spool/catalog\app:1.2.tar")
    assert (0, b"", b"") == await kubectl(*arguments, kubeconfig=kubeconfig, cwd=tmp_path)
    assert content == (api.spool / r"catalog\app:1.2.tar").read_bytes()
    assert wire.sent > len(content)


async def test_get_pods_and_logs(kubeconfig: Path, tmp_path: Path) -> None:
    code, stdout, _ = await kubectl("get", "pods", "-o", "name", kubeconfig=kubeconfig, cwd=tmp_path)
    assert (0, b"pod/spooler-0\n") == (code, stdout)
    code, stdout, _ = await kubectl("logs", "spooler-0", "-c", "spooler", kubeconfig=kubeconfig, cwd=tmp_path)
    assert (0, b"spooler ready\n") == (code, stdout)

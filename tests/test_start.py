"""What the daemon does before its imports: one heap without caches, and no authorities in an unused TLS context."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from registry_spooler.daemon.start import without_authorities
from running_spooler import RunningSpooler, Spool

PROGRAM = """
from registry_spooler.daemon.start import without_authorities
with without_authorities():
    import registry_spooler.daemon.main
import aiohttp.connector, ssl
for context in (aiohttp.connector._SSL_CONTEXT_VERIFIED, ssl.create_default_context()):
    print(context.verify_mode.name, context.cert_store_stats()["x509_ca"])
"""


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    path = tmp_path / "authority.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return path


def test_the_library_has_none_and_every_later_context_has_the_users(authority: Path) -> None:
    environment = {**os.environ, "SSL_CERT_FILE": str(authority), "SSL_CERT_DIR": os.devnull}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines() == ["CERT_REQUIRED 0", "CERT_REQUIRED 1"]


def test_the_environment_is_as_it_was(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    before = dict(os.environ)
    with pytest.raises(ZeroDivisionError), without_authorities():
        assert ssl.create_default_context().cert_store_stats()["x509_ca"] == 0
        raise ZeroDivisionError
    assert dict(os.environ) == before


@pytest.mark.parametrize("told", ["", "glibc.malloc.arena_max=2"])
def test_the_c_library_is_told_once_and_keeps_what_it_was_told(tmp_path: Path, told: str) -> None:
    """The process stays the same, and so do its arguments."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from registry_spooler.daemon.memory import have_one_heap\n"
        "print(os.getpid(), *sys.argv[1:], os.environ['GLIBC_TUNABLES'], flush=True)\n"
        "have_one_heap()\n"
        "print('on it goes')\n"
    )
    environment = {**os.environ, "GLIBC_TUNABLES": told}
    process = subprocess.Popen(
        [sys.executable, "-B", str(program), "a b", "c"], env=environment, stdout=subprocess.PIPE, text=True
    )
    output, _ = process.communicate(timeout=20)
    rest = "glibc.malloc.tcache_count=0"
    all_told = f"{told}:{rest}" if told else f"glibc.malloc.arena_max=1:{rest}"
    assert output.splitlines() == [f"{process.pid} a b c {told}", f"{process.pid} a b c {all_told}", "on it goes"]
    assert process.returncode == 0


def test_the_daemon_runs_with_one_heap_without_caches(tmp_path: Path) -> None:
    with RunningSpooler(Spool(tmp_path / "spool"), "localhost:1") as spooler:
        environment = Path(f"/proc/{spooler.process.pid}/environ").read_bytes()
    # Some versions of glibc write a zero over the colon.
    assert re.search(rb"GLIBC_TUNABLES=glibc.malloc.arena_max=1[:\0]glibc.malloc.tcache_count=0\0", environment)

"""What the daemon does before its imports: it can be stopped, and an unused TLS context gets no authorities."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from registry_spooler.cli.authorities import without_authorities
from registry_spooler.daemon.stop_signals import StopSignals
from support.programs.running_spooler import RunningSpooler, Spool

DAEMON = """
from registry_spooler.cli.authorities import without_authorities
with without_authorities():
    import registry_spooler.daemon.main
"""
PLUGIN = """
from registry_spooler.cli.kubectl.program import main
from registry_spooler.cli.kubectl.target import ClusterTarget
ClusterTarget().connect()
"""
SHOW = """
import aiohttp.connector, ssl
for context in (aiohttp.connector._SSL_CONTEXT_VERIFIED, ssl.create_default_context()):
    print(context.verify_mode.name, context.cert_store_stats()["x509_ca"])
"""


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    path = tmp_path / "authority.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return path


@pytest.mark.parametrize("start", [DAEMON, PLUGIN])
def test_the_library_has_none_and_every_later_context_has_the_users(authority: Path, start: str) -> None:
    environment = {**os.environ, "SSL_CERT_FILE": str(authority), "SSL_CERT_DIR": os.devnull}
    result = subprocess.run(
        [sys.executable, "-c", start + SHOW], env=environment, capture_output=True, text=True, check=True
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


@pytest.mark.parametrize("imported", ["asyncio", "click", "aiohttp", "registry_spooler.daemon.service"])
def test_sigterm_during_the_start_is_a_clean_stop(tmp_path: Path, imported: str) -> None:
    """At several points of it: each module is named once it has been imported."""
    spooler = RunningSpooler(Spool(made(tmp_path)), "localhost:1", environment={"PYTHONPROFILEIMPORTTIME": "1"})
    spooler.launch()
    spooler.wait_for_log(rf"\| +{re.escape(imported)}$")
    assert spooler.terminate() == 0


@pytest.mark.parametrize("imported", ["click", "registry_spooler.daemon.service"])
def test_sigterm_during_the_start_of_the_first_process_of_a_container(tmp_path: Path, imported: str) -> None:
    before = ("unshare", *(("--user", "--map-root-user") if os.geteuid() else ()), "--pid", "--fork", "--mount-proc")
    environment = {"PYTHONPROFILEIMPORTTIME": "1"}
    spooler = RunningSpooler(Spool(made(tmp_path)), "localhost:1", environment=environment, before=before)
    spooler.launch()
    try:
        spooler.wait_for_log(rf"\| +{re.escape(imported)}$")
        unshare = spooler.process.pid
        (first,) = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)
        assert spooler.ended() == 0
    except BaseException:
        spooler.process.kill()
        raise


def test_sigterm_in_the_middle_of_an_import_is_a_clean_stop() -> None:
    """Of an extension module that takes no exception there, as orjson does while it imports `json`."""
    program = """
import signal, sys
from registry_spooler.daemon.stop_signals import STOP_SIGNALS

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "json":
            signal.raise_signal(signal.SIGTERM)

STOP_SIGNALS.install()
for name in [name for name in sys.modules if name.partition(".")[0] == "json"]:
    del sys.modules[name]
sys.meta_path.insert(0, Finder())
import orjson
print("imported")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert (0, "") == (done.returncode, done.stdout)


def test_a_signal_that_came_before_the_loop_is_not_lost() -> None:
    signals, told = StopSignals(), list[str]()
    signals.started()
    signals.install()
    try:
        signal.raise_signal(signal.SIGTERM)
        signals.tell(lambda: told.append("told"))
        assert told == ["told"]
        signal.raise_signal(signal.SIGINT)
        assert told == ["told", "told"]
        assert signals.received == [signal.SIGTERM, signal.SIGINT]
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def made(folder: Path) -> Path:
    (folder / "spool").mkdir()
    return folder / "spool"

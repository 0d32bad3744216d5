"""What the daemon does before its imports: no authorities in a TLS context that nobody uses."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from registry_spooler.daemon.start import without_authorities

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

"""TLS: whom we trust, and a sentence for every way in which a handshake fails."""

from __future__ import annotations

import shutil
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from registry_spooler.errors import RegistryUnreachable
from registry_spooler.registry.http.retry import RetryPolicy
from registry_spooler.registry.http.trust import CertificateUnreadable, TrustStore
from registry_spooler.registry.registry_client import RegistryClient
from support.registries.playedregistry import PlayedRegistry, served

ONCE = RetryPolicy(tries=1)


class Authority:
    """A certificate authority of the tests' own."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.certificate = folder / "authority.pem"
        self._ca.cert_pem.write_to_path(self.certificate)

    def server(self, identity: str = "127.0.0.1", days: tuple[int, int] = (-1, 30)) -> ssl.SSLContext:
        """A server's context, with a certificate that is good from `days[0]` to `days[1]` from now."""
        start, end = (datetime.now(UTC) + timedelta(days=day) for day in days)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(identity, not_before=start, not_after=end).configure_cert(context)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_a_private_authority_against_the_real_registry(make_registry, repository):
    registry = make_registry(tls=True, inmemory=True)
    async with RegistryClient(registry.host, certificate=registry.certificate) as client:
        await client.ping()
        await client.put_bytes(repository, b"{}")
    assert client.address == registry.url


async def test_a_trusted_server(authority):
    async with (
        served(PlayedRegistry().application(), authority.server()) as url,
        RegistryClient(url, certificate=authority.certificate) as client,
    ):
        await client.ping()
        assert client.address == url


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"days": (-20, -10)}, "its certificate has expired"),
        ({"days": (10, 20)}, "not valid yet"),
        ({"identity": "other.example"}, "for another host name"),
        ({"identity": "127.0.0.9"}, "for another host name"),
    ],
)
async def test_a_certificate_that_is_not_accepted(authority, options, sentence):
    assert sentence in await _refusal(authority.server(**options), authority.certificate)


async def test_an_unknown_authority(authority, tmp_path):
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    server = authority.server()
    told = "authority that is not trusted here"
    assert f"{told}; give the CA with --certificate" in await _refusal(server, other.certificate)
    assert told in await _refusal(server, None)


async def test_http_spoken_to_https(authority):
    async with (
        served(PlayedRegistry().application(), authority.server()) as url,
        RegistryClient(url.replace("https", "http"), retry=ONCE) as client,
    ):
        with pytest.raises(RegistryUnreachable, match=r"without an answer|may speak https"):
            await client.ping()


async def test_http_spoken_to_the_real_registrys_https(make_registry):
    registry = make_registry(tls=True, inmemory=True)
    async with RegistryClient(registry.url.replace("https", "http"), retry=ONCE) as client:
        with pytest.raises(RegistryUnreachable, match="it speaks https, not http"):
            await client.ping()


async def test_https_spoken_to_http(registry, authority):
    async with RegistryClient(registry.host, certificate=authority.certificate, retry=ONCE) as client:
        with pytest.raises(RegistryUnreachable, match="may be plain http") as caught:
            await client.ping()
    assert caught.value.temporary


async def test_no_version_in_common(make_registry):
    registry = make_registry(tls=True, inmemory=True, extra={"http": {"tls": {"minimumtls": "tls1.3"}}})
    said = await _refused_below_13(registry.url, registry.certificate)
    assert "no TLS version or cipher in common" in said


async def test_a_handshake_that_is_broken_off(authority):
    server = authority.server()
    server.minimum_version = ssl.TLSVersion.TLSv1_3
    async with served(PlayedRegistry().application(), server) as url:
        said = await _refused_below_13(url, authority.certificate)
    assert "broke the TLS handshake off" in said


async def _refused_below_13(url: str, certificate: Path) -> str:
    """What is said when nothing newer than TLS 1.2 is offered."""
    async with RegistryClient(url, certificate=certificate, retry=ONCE) as client:
        context = await client._transport._trust.context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(RegistryUnreachable) as caught:
            await client.ping()
    return str(caught.value)


async def test_a_bundle_that_is_swapped_is_read_again(authority, tmp_path, monkeypatch):
    monkeypatch.setattr("registry_spooler.registry.http.trust.REREAD_SECONDS", 0.0)
    (tmp_path / "other").mkdir()
    bundle = tmp_path / "bundle.pem"
    shutil.copy(Authority(tmp_path / "other").certificate, bundle)
    async with (
        served(PlayedRegistry().application(), authority.server()) as url,
        RegistryClient(url, certificate=bundle, retry=ONCE) as client,
    ):
        with pytest.raises(RegistryUnreachable):
            await client.ping()
        (tmp_path / "next.pem").write_bytes(authority.certificate.read_bytes())
        (tmp_path / "next.pem").replace(bundle)
        await client.ping()
        bundle.unlink()
        await client.ping()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "No such file or directory"), (b"no certificate", "it is no bundle of certificates in PEM format")],
)
async def test_a_bundle_that_is_none(tmp_path, content, sentence):
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)
    with pytest.raises(CertificateUnreadable) as caught:
        await TrustStore(bundle).context()
    assert f"the certificate {str(bundle)!r} cannot be read: {sentence}" == str(caught.value)
    assert caught.value.temporary


async def test_where_the_registry_sends_us_the_systems_authorities_count_too(authority):
    store = TrustStore(authority.certificate)
    own, elsewhere = await store.context(), await store.context(elsewhere=True)
    assert len(own.get_ca_certs()) == 1
    assert elsewhere.cert_store_stats()["x509"] > 1


async def _refusal(server: ssl.SSLContext, certificate: Path | None) -> str:
    async with (
        served(PlayedRegistry().application(), server) as url,
        RegistryClient(url, certificate=certificate, retry=ONCE) as client,
    ):
        with pytest.raises(RegistryUnreachable) as refused:
            await client.ping()
    return str(refused.value)

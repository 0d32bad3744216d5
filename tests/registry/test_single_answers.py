"""The client's understanding of single answers, given by aioresponses: lists, deletions, manifests, complaints."""

from __future__ import annotations

import re
from unittest.mock import Mock

import orjson
import pytest
from aiohttp import ClientResponse
from aioresponses import CallbackResult, aioresponses

from registry_spooler.errors import (
    AccessDenied,
    DeletesDisabled,
    DeletionNotConfirmed,
    NotFound,
    RegistryAnswer,
    RegistryProtocolError,
    RegistryUnreachable,
)
from registry_spooler.oci import mediatype
from registry_spooler.oci.digest import EMPTY_JSON, Digest
from registry_spooler.oci.manifest import Manifest
from registry_spooler.oci.reference import Reference
from registry_spooler.registry.auth.credentials import CredentialSettings, CredentialSource
from registry_spooler.registry.http.retry import RetryPolicy
from registry_spooler.registry.registry_client import RegistryClient
from registry_spooler.registry.tags import next_link

BASE = "https://registry.example/v2"
DIGEST = Digest.of(EMPTY_JSON)
POINTER = {"digest": str(DIGEST), "size": 2}
DOCUMENT = orjson.dumps(
    {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": {"mediaType": mediatype.OCI_CONFIG, **POINTER},
        "layers": [],
    }
)
MANIFEST = Manifest.parse(DOCUMENT)
REFERENCE = Reference("a/b", "tag")
ONCE = RetryPolicy(tries=1)
VERSION = {"Docker-Distribution-Api-Version": "registry/2.0"}
TAG = f"{BASE}/a/b/manifests/tag"
THERE = {"Docker-Content-Digest": str(MANIFEST.digest), "Content-Length": str(len(DOCUMENT))}


class GivenResponse(ClientResponse):
    """aioresponses does not know yet that aiohttp's responses want to hear of a writer."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, stream_writer=Mock(output_size=0), **named)


class Answers(aioresponses):
    """Answers given in place of a registry's."""

    def add(self, url, method="GET", headers=None, **answer):
        super().add(url, method, response_class=GivenResponse, headers={**VERSION, **(headers or {})}, **answer)


@pytest.fixture
def answers():
    with Answers() as answers:
        yield answers


@pytest.fixture
async def client(answers):
    async with RegistryClient("registry.example", retry=ONCE) as client:
        yield client


def _errors(code: str, message: str = "") -> bytes:
    return orjson.dumps({"errors": [{"code": code, "message": message}]})


async def _tags(client: RegistryClient) -> list[str]:
    return [tag async for tag in client.list_tags("a/b")]


async def test_pages_are_followed_by_their_links(client, answers):
    first, second, third = (f"{BASE}/a/b/tags/list{query}" for query in ("?n=1000", "?last=x%2By&n=1000", "?page=3"))
    answers.get(first, payload={"tags": ["1"]}, headers={"Link": '</v2/a/b/tags/list?last=x%2By&n=1000>; rel="next"'})
    answers.get(second, payload={"tags": ["2"]}, headers={"Link": f"<{third}>; rel=next"})
    answers.get(third, payload={"tags": None})
    assert await _tags(client) == ["1", "2"]


async def test_fewer_than_asked_for_is_not_the_end_but_no_link_is(client, answers):
    answers.get(f"{BASE}/a/b/tags/list?n=1000", payload={"tags": ["1"] * 1000})
    assert len(await _tags(client)) == 1000


async def test_a_page_that_comes_again_ends_the_list(client, answers):
    again = {"Link": '</v2/a/b/tags/list?n=1000>; rel="next"'}
    answers.get(f"{BASE}/a/b/tags/list?n=1000", payload={"tags": ["1", "2"]}, headers=again, repeat=True)
    assert await _tags(client) == ["1", "2", "1", "2"]


async def test_a_page_size_that_is_refused(client, answers):
    answers.get(f"{BASE}/a/b/tags/list?n=1000", status=400, body=_errors("PAGINATION_NUMBER_INVALID"))
    answers.get(f"{BASE}/a/b/tags/list", payload={"tags": ["1"]})
    assert await _tags(client) == ["1"]


async def test_lists_that_are_none(client, answers):
    answers.get(f"{BASE}/a/b/tags/list?n=1000", body=b"<html>")
    with pytest.raises(RegistryProtocolError, match="list of tags"):
        await _tags(client)
    answers.get(f"{BASE}/a/b/tags/list?n=1000", status=404, body=_errors("NAME_UNKNOWN"))
    with pytest.raises(NotFound):
        await _tags(client)


async def test_a_registry_without_a_catalog(client, answers):
    answers.get(f"{BASE}/_catalog?n=1000", status=404)
    with pytest.raises(NotFound, match="offers no catalog"):
        _ = [name async for name in client.list_repositories()]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        (['</a?b,c>; rel="next"'], "/a?b,c"),
        (['</a>;rel=next'], "/a"),
        (['</a>; rel="prev", </b>; title="x, y"; rel="next"'], "/b"),
        (['</a>; rel="prev"', '</b>; rel="last next"'], "/b"),
        (['</a>; rel="nextish"'], None),
        (["/a; rel=next"], None),
    ],
)  # fmt: skip
def test_links(headers, expected):
    assert next_link(headers) == expected


async def test_a_tag_is_deleted_where_tags_can_be(client, answers):
    answers.head(TAG, headers=THERE)
    answers.delete(TAG, status=202)
    answers.head(TAG, status=404)
    assert await client.delete_tag(REFERENCE) is True
    answers.head(TAG, status=404)
    assert await client.delete_tag(REFERENCE) is False
    answers.head(TAG, headers=THERE)
    answers.delete(TAG, status=404, body=_errors("MANIFEST_UNKNOWN"))
    answers.head(TAG, status=404)
    assert await client.delete_tag(REFERENCE) is False


async def test_a_deletion_that_did_not_happen_is_told_and_tried_again(client, answers, monkeypatch):
    monkeypatch.setattr("registry_spooler.registry.tags.SIGHT_SECONDS", (0.0, 0.0))
    answers.head(TAG, headers=THERE, repeat=True)
    answers.delete(TAG, status=202)
    with pytest.raises(DeletionNotConfirmed, match=f"still answers for it with {MANIFEST.digest}") as caught:
        await client.delete_tag(REFERENCE)
    assert caught.value.temporary
    by_digest = f"{BASE}/a/b/manifests/{MANIFEST.digest}"
    answers.delete(by_digest, status=202)
    answers.head(by_digest, headers=THERE, repeat=True)
    with pytest.raises(DeletionNotConfirmed):
        await client.delete_digest(Reference("a/b", None, MANIFEST.digest))


async def test_a_registry_that_sees_its_deletion_late_and_a_tag_that_is_pushed_anew_meanwhile(
    client, answers, monkeypatch
):
    monkeypatch.setattr("registry_spooler.registry.tags.SIGHT_SECONDS", (0.0, 0.0))
    for last in ({"status": 404}, {"headers": {**THERE, "Docker-Content-Digest": str(DIGEST)}}):
        for _ in range(2):
            answers.head(TAG, headers=THERE)
        answers.delete(TAG, status=202)
        answers.head(TAG, **last)
        assert await client.delete_tag(REFERENCE) is True


async def test_deletes_switched_off(client, answers):
    answers.head(TAG, headers=THERE)
    answers.delete(f"{BASE}/a/b/manifests/tag", status=405, body=_errors("UNSUPPORTED"))
    with pytest.raises(DeletesDisabled, match=r"storage\.delete\.enabled"):
        await client.delete_tag(REFERENCE)


@pytest.mark.parametrize(("status", "code"), [(409, "TAG_IMMUTABLE"), (403, "DENIED"), (400, "NAME_UNKNOWN")])
async def test_a_deletion_that_is_refused_changes_nothing(client, answers, status, code):
    answers.get(f"{BASE}/")
    answers.head(TAG, headers=THERE)
    answers.delete(TAG, status=status, body=_errors(code), repeat=True)
    with pytest.raises(RegistryAnswer, match=code) as caught:
        await client.delete_tag(REFERENCE)
    assert not caught.value.temporary
    assert {method for method, _ in answers.requests} <= {"HEAD", "DELETE", "GET"}


def _placeholder_registry(
    answers: aioresponses, *, delete_statuses: list[int], tag_status: int = 400
) -> list[tuple[str, str]]:
    """A registry that deletes by digest alone; gives what is put and deleted, in order."""
    done: list[tuple[str, str]] = []

    def put(url, **request):
        done.append(("PUT", url.raw_path.rpartition("/")[2]))
        if request.get("data") == DOCUMENT:
            done.append(("original", "back"))
        said = {"Docker-Content-Digest": str(Digest.of(request["data"]))}
        return CallbackResult(status=201, headers=said, response_class=GivenResponse)

    def put_blob(url, **request):
        said = {"Docker-Content-Digest": url.query["digest"]}
        return CallbackResult(status=201, headers=said, response_class=GivenResponse)

    def delete(url, **request):
        done.append(("DELETE", url.raw_path.rpartition("/")[2]))
        return CallbackResult(status=delete_statuses.pop(0), headers=VERSION, response_class=GivenResponse)

    answers.delete(f"{BASE}/a/b/manifests/tag", status=tag_status, body=_errors("UNSUPPORTED"))
    for _ in range(1 if tag_status == 400 else 2):
        answers.head(TAG, headers=THERE)
    answers.head(TAG, status=404)
    answers.get(f"{BASE}/a/b/manifests/tag", body=DOCUMENT, headers={"Content-Type": mediatype.OCI_MANIFEST})
    location = {"Location": "/v2/a/b/blobs/uploads/u"}
    answers.post(f"{BASE}/a/b/blobs/uploads/", status=202, headers=location, repeat=True)
    answers.put(re.compile(rf"{BASE}/a/b/blobs/uploads/u\?digest=.*"), callback=put_blob, repeat=True)
    answers.put(re.compile(rf"{BASE}/a/b/manifests/.*"), callback=put, repeat=True)
    answers.delete(re.compile(rf"{BASE}/a/b/manifests/sha256.*"), callback=delete, repeat=True)
    return done


@pytest.mark.parametrize("tag_status", [400, 404], ids=["refused", "no such request"])
async def test_a_tag_is_moved_to_a_placeholder_only_when_deletion_is_proved(client, answers, tag_status):
    done = _placeholder_registry(answers, delete_statuses=[202, 202], tag_status=tag_status)
    assert await client.delete_tag(REFERENCE) is True
    (_, probe), (_, probe_again), (_, tag), (_, placeholder) = done
    assert (probe, tag) == (probe_again, "tag")
    assert placeholder not in {probe, str(MANIFEST.digest)}


async def test_a_probe_that_is_not_deleted_leaves_the_tag_alone(client, answers):
    done = _placeholder_registry(answers, delete_statuses=[405])
    with pytest.raises(DeletesDisabled):
        await client.delete_tag(REFERENCE)
    assert ("PUT", "tag") not in done


async def test_the_tag_gets_its_manifest_back_when_the_last_step_fails(client, answers):
    done = _placeholder_registry(answers, delete_statuses=[202, 500])
    with pytest.raises(RegistryAnswer, match="500"):
        await client.delete_tag(REFERENCE)
    assert done[-2:] == [("PUT", "tag"), ("original", "back")]


async def test_a_registry_that_only_knows_get(client, answers):
    answers.head(f"{BASE}/a/b/manifests/tag", status=405)
    answers.get(f"{BASE}/a/b/manifests/tag", body=DOCUMENT, headers={"Content-Type": mediatype.OCI_MANIFEST})
    descriptor = await client.head_manifest(REFERENCE)
    assert descriptor is not None
    assert descriptor.digest == MANIFEST.digest


async def test_a_manifest_of_another_digest_is_refused(client, answers):
    answers.get(f"{BASE}/a/b/manifests/{DIGEST}", body=DOCUMENT)
    with pytest.raises(RegistryProtocolError, match="has the digest"):
        await client.get_manifest(Reference("a/b", None, DIGEST))
    answers.get(f"{BASE}/a/b/manifests/tag", body=DOCUMENT, headers={"Docker-Content-Digest": str(DIGEST)})
    with pytest.raises(RegistryProtocolError, match="has the digest"):
        await client.get_manifest(REFERENCE)


@pytest.mark.parametrize(
    ("status", "headers", "accepted"),
    [
        (201, {}, True),
        (200, {"Docker-Content-Digest": str(MANIFEST.digest)}, True),
        (202, {}, True),
        (200, {}, False),
        (201, {}, False),
        (201, {"Docker-Content-Digest": str(DIGEST)}, False),
    ],
)
async def test_what_counts_as_a_stored_manifest(client, answers, status, headers, accepted):
    answers.put(f"{BASE}/a/b/manifests/tag", status=status, headers=headers)
    answers.head(TAG, headers=THERE) if accepted else answers.head(TAG, status=404)
    if accepted:
        assert await client.put_manifest(REFERENCE, MANIFEST) == MANIFEST.digest
    else:
        with pytest.raises(RegistryProtocolError) as caught:
            await client.put_manifest(REFERENCE, MANIFEST)
        assert caught.value.temporary


@pytest.mark.parametrize("code", ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "DIGEST_INVALID"])
async def test_a_registry_that_sees_its_blobs_late(code, client, answers, monkeypatch):
    monkeypatch.setattr("registry_spooler.registry.manifests.SIGHT_SECONDS", (0.0, 0.0))
    url = f"{BASE}/a/b/manifests/tag"
    for _ in range(2):
        answers.put(url, status=400, body=_errors(code))
    answers.put(url, status=201, headers=THERE)
    answers.head(f"{BASE}/a/b/blobs/{DIGEST}", headers={"Content-Length": "2"}, repeat=True)
    assert await client.put_manifest(REFERENCE, MANIFEST) == MANIFEST.digest


async def test_a_blob_that_was_cleared_away_is_worth_another_push(client, answers):
    answers.put(f"{BASE}/a/b/manifests/tag", status=400, body=_errors("MANIFEST_BLOB_UNKNOWN"))
    answers.head(f"{BASE}/a/b/blobs/{DIGEST}", status=404)
    with pytest.raises(RegistryAnswer, match=f"does not hold {DIGEST}") as caught:
        await client.put_manifest(REFERENCE, MANIFEST)
    assert caught.value.temporary


async def test_a_subject_that_the_registry_takes_care_of(client, answers):
    document = {**orjson.loads(DOCUMENT), "subject": {"mediaType": mediatype.OCI_MANIFEST, **POINTER}}
    answers.put(
        f"{BASE}/a/b/manifests/tag",
        status=201,
        headers={"OCI-Subject": str(DIGEST), "Docker-Content-Digest": str(Digest.of(orjson.dumps(document)))},
    )
    await client.put_manifest(REFERENCE, Manifest.parse(orjson.dumps(document)))
    assert len(answers.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "kind", "sentence"),
    [
        (
            401,
            _errors("UNAUTHORIZED", "log in"),
            AccessDenied,
            r"UNAUTHORIZED: log in\); the registry wants a login; give it with",
        ),
        (
            403,
            _errors("DENIED"),
            AccessDenied,
            "DENIED.*nobody has the right for this repository without a login; give it with",
        ),
        (404, b"", NotFound, "answered 404 to GET"),
        (400, b"plain words", RegistryAnswer, "plain words"),
        (400, b"<html><body>proxy", RegistryAnswer, "answered 400"),
        (400, b'{"errors":[]}', RegistryAnswer, "answered 400"),
        (
            400,
            b'{"errors":[{"code":"X","message":"no Bearer eyJhbGciOiJSUzI1NiIs seen"}]}',
            RegistryAnswer,
            "no … seen",
        ),
        (400, b"see https://h/x?sig=secret there", RegistryAnswer, "see … there"),
        (400, b"Client sent an HTTP request to an HTTPS server.", RegistryUnreachable, "speaks https, not http"),
        (500, _errors("UNKNOWN"), RegistryAnswer, "UNKNOWN"),
        (204, b"", RegistryProtocolError, "answered 204"),
        (304, b"", RegistryProtocolError, "answered 304"),
    ],
)
async def test_what_a_registry_complains_of(client, answers, status, body, kind, sentence):
    answers.get(f"{BASE}/", body=b"{}")
    answers.get(f"{BASE}/a/b/manifests/tag", status=status, body=body, repeat=True)
    with pytest.raises(kind, match=sentence) as caught:
        await client.get_manifest(REFERENCE)
    is_of_the_image = 400 <= status < 500 and status != 401 and kind is not RegistryUnreachable
    assert caught.value.temporary is not is_of_the_image
    assert caught.value.transient == (status >= 500 or kind is RegistryUnreachable)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "check the user name and password or the token$"),
        (403, "this login does not have the right for this repository$"),
    ],
)
async def test_what_a_registry_complains_of_to_a_login(answers, status, sentence):
    answers.get(f"{BASE}/", body=b"{}")
    answers.get(TAG, status=status, body=_errors("DENIED"), repeat=True)
    source = CredentialSource(CredentialSettings(username="user", password="secret"))
    async with RegistryClient("https://registry.example", credentials=source, retry=ONCE) as client:
        with pytest.raises(AccessDenied, match=sentence):
            await client.get_manifest(REFERENCE)


async def test_a_config_larger_than_it_may_be(client, answers):
    answers.get(f"{BASE}/a/b/blobs/{DIGEST}", body=b"x" * 1000)
    with pytest.raises(RegistryProtocolError, match=r"more than 10 bytes|another digest"):
        await client.get_bytes("a/b", DIGEST, limit_bytes=10)


async def test_a_blob_of_another_content_is_never_handed_out_whole(client, answers):
    answers.get(f"{BASE}/a/b/blobs/{DIGEST}", body=b"[]")
    with pytest.raises(RegistryProtocolError, match="another digest"):
        await client.get_bytes("a/b", DIGEST, limit_bytes=10)


async def test_docker_hubs_single_names(answers):
    answers.head(f"https://registry-1.docker.io/v2/library/alpine/blobs/{DIGEST}", headers={"Content-Length": "2"})
    async with RegistryClient("docker.io", retry=ONCE) as client:
        assert await client.blob_exists("alpine", DIGEST) == 2

"""`inspect`, `delete`: what an image consists of, and how one tag goes while its neighbours stay."""

from __future__ import annotations

import json

import pytest

from support.images.posted import Poster, layer_tar, packed, sha256
from support.programs.command_client import Client
from support.registries.verify import Reader

LAYER = layer_tar({"hello": b"hello\n"})


def test_an_image_is_described(client, poster, repository):
    image = poster.image([LAYER], tag="v1")

    document = client.json("inspect", "--json", f"{repository}:v1")

    config = document["platforms"][0]["config"]
    layer = {
        "digest": sha256(packed(LAYER)),
        "media_type": "application/vnd.oci.image.layer.v1.tar+gzip",
        "size_bytes": len(packed(LAYER)),
    }
    size = image["size"] + config["size_bytes"] + layer["size_bytes"]
    assert document == {
        "reference": f"{repository}:v1",
        "digest": image["digest"],
        "media_type": "application/vnd.oci.image.manifest.v1+json",
        "artifact_type": "",
        "size_bytes": size,
        "annotations": {},
        "platforms": [
            {
                "platform": "linux/amd64",
                "digest": image["digest"],
                "media_type": "application/vnd.oci.image.manifest.v1+json",
                "size_bytes": size,
                "attests": None,
                "config": config,
                "layers": [layer],
            }
        ],
        "missing": [],
    }


def test_an_index_is_described_with_all_its_images(client, poster, repository):
    index = poster.two_platforms()

    document = client.json("inspect", "--json", repository)

    assert document["digest"] == index["digest"]
    assert [image["platform"] for image in document["platforms"]] == [
        "linux/amd64",
        "linux/arm64/v8",
        "unknown/unknown",
    ]
    assert document["platforms"][2]["attests"] == document["platforms"][0]["digest"]


def test_people_get_text(client, poster, repository):
    index = poster.two_platforms()

    lines = client.lines("inspect", repository)

    assert lines[:2] == [f"reference  {repository}:latest", f"digest     {index['digest']}"]
    assert [line.split()[0] for line in lines if "  sha256:" in line and not line.startswith(" ")][1:] == [
        "linux/amd64",
        "linux/arm64/v8",
        "attestation",
    ]


def test_no_control_character_reaches_a_terminal(client, poster, repository):
    hostile = "\x1b]0;owned\x07\nline\u202e"
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/x",
        "config": poster.blob(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [],
        "annotations": {"title": hostile},
    }
    poster.manifest(document, tag="latest")

    output = client.run("inspect", repository).stdout.decode()

    assert r"annotation title=\x1b]0;owned\x07\nline\u202e" in output.splitlines()


def test_the_raw_manifest_is_the_registrys(client, poster, repository):
    image = poster.image([LAYER], tag="v1")

    assert sha256(client.run("inspect", "--raw", "--", f"{repository}:v1").stdout) == image["digest"]
    assert sha256(client.run("inspect", "--raw", f"{repository}@{image['digest']}").stdout) == image["digest"]


def test_what_is_not_there_is_not_found(client, repository):
    assert "404" in client.error("inspect", repository, code=3)


def test_one_tag_goes_and_the_others_stay(client, poster, registry, repository):
    image = poster.image([LAYER], tag="v1")
    poster.image([LAYER], tag="v2")

    assert client.lines("delete", f"{repository}:v1") == [f"deleted {repository}:v1 ({image['digest']})"]
    assert Reader(registry).tags(repository) == ["v2"]
    assert Reader(registry).image(repository, "v2").digest == image["digest"]


def test_a_deletion_for_a_program(client, poster, repository):
    image = poster.image([LAYER], tag="v1")

    first = client.json("delete", "--json", f"{repository}:v1")
    again = json.loads(client.run("delete", "--json", f"{repository}:v1", code=3).stdout)

    assert first == {"reference": f"{repository}:v1", "digest": image["digest"], "tags": ["v1"]}
    assert again == {"reference": f"{repository}:v1", "digest": None, "tags": []}


def test_what_was_not_there_is_told_from_what_was_deleted(client, repository):
    assert client.error("delete", repository, code=3) == f"{repository}:latest was not there"


def test_by_digest_all_tags_go_and_are_named_first(client, poster, registry, repository):
    image = poster.image([LAYER], tag="v1")
    poster.image([LAYER], tag="v2")
    poster.image([layer_tar({"other": b""})], tag="other")

    assert client.lines("delete", "--digest", f"{repository}:v1") == [
        f"with {repository}:v1",
        f"with {repository}:v2",
        f"deleted {repository}:v1 ({image['digest']})",
    ]
    assert Reader(registry).tags(repository) == ["other"]


def test_a_digest_alone_is_not_enough_to_delete_by_it(client, poster, registry, repository):
    image = poster.image([LAYER], tag="v1")

    assert "add --digest" in client.error("delete", f"{repository}@{image['digest']}", code=2)
    assert Reader(registry).has(repository, "v1")
    client.run("delete", "--digest", f"{repository}@{image['digest']}")
    assert not Reader(registry).has(repository, "v1")


def test_deletes_that_are_switched_off_are_not_allowed(make_registry, tmp_path, repository):
    registry = make_registry(deletes=False)
    Poster(registry, repository).image([LAYER], tag="latest")

    assert "storage.delete.enabled" in Client(registry, tmp_path).error("delete", repository, code=4)
    assert Reader(registry).has(repository, "latest")


def test_a_login_that_is_refused_is_not_allowed(make_registry, tmp_path):
    registry = make_registry(htpasswd={"ada": "lovelace"})
    wrong = Client(registry, tmp_path, {"REGISTRY_CLIENT_USERNAME": "ada", "REGISTRY_CLIENT_PASSWORD": "babbage"})
    right = Client(registry, tmp_path, {"REGISTRY_SPOOLER_username": "ada", "REGISTRY_SPOOLER_PASSWORD": "lovelace"})

    error = wrong.error("list", code=4)

    assert "401" in error
    assert "check the user name and password" in error
    assert "babbage" not in error
    assert "the registry wants a login; give it with --username and --password-file" in Client(
        registry, tmp_path
    ).error("list", code=4)
    assert right.lines("list") == []


def test_a_registry_that_is_not_there_is_a_failure(client, make_registry):
    gone = make_registry()
    gone.stop()

    error = client.error("list", "--registry", gone.host, code=1)

    assert error.startswith(f"the registry http://{gone.host} cannot be reached")


@pytest.mark.parametrize("arguments", [(), ("inspect",), ("inspect", "a", "b"), ("list", "--nonsense"), ("nonsense",)])
def test_wrong_usage_has_its_own_code_and_one_line(client, arguments):
    assert client.error(*arguments, code=2).endswith("--help)")

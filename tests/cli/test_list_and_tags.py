"""`list`, `tags`: what is in the registry."""

from __future__ import annotations

import pytest

from support.images.posted import Poster, layer_tar
from support.programs.command_client import Client

IMAGE = [layer_tar({"hello": b"hello\n"})]


@pytest.fixture
def filled(make_registry):
    """A registry with two repositories, one with two tags."""
    registry = make_registry()
    Poster(registry, "catalog/app").image(IMAGE, tag="v2")
    Poster(registry, "catalog/app").image(IMAGE, tag="v1")
    Poster(registry, "base").image(IMAGE, tag="latest")
    return registry


@pytest.fixture
def client(filled, tmp_path):
    return Client(filled, tmp_path)


def test_the_repositories(client):
    assert client.lines("list") == ["base", "catalog/app"]
    assert client.json("list", "--json") == ["base", "catalog/app"]


def test_the_images_with_their_tags(client):
    assert client.lines("list", "--tags") == ["base:latest", "catalog/app:v1", "catalog/app:v2"]
    assert client.json("list", "--tags", "--json") == ["base:latest", "catalog/app:v1", "catalog/app:v2"]


def test_the_tags_of_one(client):
    assert client.lines("tags", "catalog/app") == ["v1", "v2"]
    assert client.json("tags", "--json", "--", "catalog/app") == ["v1", "v2"]


def test_a_repository_without_tags_is_no_image(client):
    client.run("delete", "base")

    assert client.lines("list", "--tags") == ["catalog/app:v1", "catalog/app:v2"]


def test_every_page_is_read(make_registry, tmp_path):
    registry = make_registry(extra={"catalog": {"maxentries": 3}})
    for number in range(10):
        Poster(registry, f"app-{number}").image(IMAGE, tag="latest")

    assert Client(registry, tmp_path).lines("list") == [f"app-{number}" for number in range(10)]


def test_an_unknown_repository_is_not_found(client):
    assert "404" in client.error("tags", "nowhere", code=3)


def test_a_name_that_is_none_is_wrong_usage(client):
    assert client.error("tags", "Not/A/Name", code=2).startswith("'Not/A/Name' does not name an image")

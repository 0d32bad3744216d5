"""`push` remembers what it compressed."""

from __future__ import annotations

from pathlib import Path

from support.images import archives
from support.images.archive_parts import Image, layer
from support.programs.command_client import Client


def test_a_second_push_neither_reads_nor_compresses_layers_again(
    client: Client, repository: str, tmp_path: Path
) -> None:
    image = Image(layers=(layer(f"{repository}/1"), layer(f"{repository}/2")))
    (tmp_path / "app.tar").write_bytes(archives.podman_docker(image))

    first, second = (client.json("push", "--json", f"{repository}:{tag}", "app.tar") for tag in (1, 2))

    assert {"uploaded": 3, "existing": 0, "mounted": 0} == first["blobs"]
    assert {"uploaded": 0, "existing": 3, "mounted": 0} == second["blobs"]
    assert first["digest"] == second["digest"]
    assert 2 == len(list((client.folder / ".cache/registry-spooler/layers").iterdir()))

"""Files as sources: read by position, from any thread, on every system."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from registry_spooler.archive import source
from registry_spooler.archive.source import FileSource
from registry_spooler.errors import SourceChanged

CONTENT = bytes(range(256)) * 64


@pytest.fixture(params=["linux", "win32"])
def file_source(request, tmp_path, monkeypatch):
    """A source, as it reads where there is `pread`, and where there is none."""
    monkeypatch.setattr(source, "sys", SimpleNamespace(platform=request.param))
    (tmp_path / "file").write_bytes(CONTENT)
    with open(tmp_path / "file", "rb") as file:
        yield FileSource(file.fileno(), name="file")


@pytest.mark.parametrize(("position", "count"), [(0, 10), (100, 0), (len(CONTENT) - 5, 10), (len(CONTENT) + 5, 10)])
def test_any_range(file_source, position, count):
    assert file_source.read_at(position, count) == CONTENT[position : position + count]


def test_side_by_side(file_source):
    with ThreadPoolExecutor(8) as threads:
        positions = range(0, len(CONTENT), 16)
        assert b"".join(threads.map(lambda position: file_source.read_at(position, 16), positions)) == CONTENT


def test_a_file_that_shrank_is_not_read_short(file_source, tmp_path):
    (tmp_path / "file").write_bytes(b"short")
    with pytest.raises(SourceChanged) as caught:
        file_source.read_at(0, 10)
    assert caught.value.temporary

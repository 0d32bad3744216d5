"""The pictures that README.md shows can be drawn anew, and show what they are shown for."""

from __future__ import annotations

import os
import re
from pathlib import Path

import PIL.Image
import pytest

from pictures.__main__ import FOLDER, PICTURE_BYTES_MAX
from pictures.page_picture import WIDTH_PIXELS, draw_page
from pictures.screen import Screen
from pictures.terminal_picture import draw_terminal

DIGEST = "sha256:[0-9a-f]{64}"


async def test_the_terminal_shows_a_push_that_ends_in_a_pod(tmp_path: Path) -> None:
    lines = await draw_terminal(tmp_path / "terminal.svg")

    assert "$ kubectl spool push app.tar catalog/app:v1" == lines[0]
    assert re.fullmatch(f"127.0.0.1:5001/catalog/app:v1@{DIGEST}", lines[2])
    assert any("1 blob there already" in line for line in lines)
    assert any("deployment/web: 1 of 1 pods updated, 1 available" in line for line in lines)
    assert ["v1", "v2"] == lines[-2:]
    drawn = (tmp_path / "terminal.svg").read_text()
    assert ">v2" in drawn
    assert "url(http" not in drawn


async def test_a_screen_shows_what_is_left_of_what_was_written(tmp_path: Path) -> None:
    screen = Screen(40)

    code = await screen.run(r"printf 'half\r\033[Kwhole \033[33mcolour\033[0m\n'; exit 3", dict(os.environ), tmp_path)

    assert 3 == code
    assert "whole colour" == screen.lines[-1]
    assert "fill: #d0b344" in screen.svg("test")


@pytest.mark.timeout(240)
async def test_the_page_is_drawn_light_and_dark(tmp_path: Path) -> None:
    paths = (tmp_path / "light.png", tmp_path / "dark.png")
    await draw_page(paths)

    corners = []
    for path in paths:
        assert path.stat().st_size <= PICTURE_BYTES_MAX
        with PIL.Image.open(path) as picture:
            assert WIDTH_PIXELS == picture.width
            corners.append(sum(picture.convert("RGB").getpixel((1, 1))))
    assert corners[0] > 600 > 200 > corners[1]


def test_the_pictures_that_are_shown_are_small() -> None:
    found = sorted(path.name for path in FOLDER.iterdir())

    assert ["page-dark.png", "page-light.png", "terminal.svg"] == found
    assert all((FOLDER / name).stat().st_size <= PICTURE_BYTES_MAX for name in found)

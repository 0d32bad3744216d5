"""The command line of `./dev pictures`."""

from __future__ import annotations

from pathlib import Path

import anyio
import click

from pictures.page_picture import draw_page
from pictures.terminal_picture import draw_terminal

FOLDER = Path(__file__).resolve().parents[2] / "docs/pictures"
PICTURE_BYTES_MAX = 150 << 10


async def draw(folder: Path) -> list[Path]:
    """Draw all pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    terminal, light, dark = (folder / name for name in ("terminal.svg", "page-light.png", "page-dark.png"))
    await draw_terminal(terminal)
    await draw_page((light, dark))
    return [terminal, light, dark]


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=FOLDER, show_default=True)
def main(folder: Path) -> None:
    """Make the pictures of README.md: the terminal of a push as SVG, and the status page of a busy spooler."""
    for path in anyio.run(draw, folder):
        size = path.stat().st_size
        click.echo(f"{path}: {size / 1024:.0f} KiB")
        if size > PICTURE_BYTES_MAX:
            raise click.ClickException(f"{path} is larger than {PICTURE_BYTES_MAX >> 10} KiB")


if __name__ == "__main__":
    main(prog_name="./dev pictures")

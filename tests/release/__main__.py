"""The command line of `./dev release`: make each artefact, try it, and list them all with their checksums."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click

from release import checksums, distributions, krew, sbom, single_file, trial
from release.platforms import TARGETS
from release.project import ROOT, Project, ReleaseError, source_date_epoch, version

_NOWHERE = "https://registry-spooler.example/download/v{version}"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "dist", help="Folder, emptied first.")
@click.option("--url", envvar="RELEASE_URL", help="Where the files will be downloaded from (for krew).")
def main(output: Path, url: str | None) -> None:
    """Make and try everything that a user downloads."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    project = Project(version(), source_date_epoch(), output.resolve())
    os.chdir(ROOT)
    try:
        python_files(project, url)
    except ReleaseError as exc:
        raise click.ClickException(str(exc)) from exc
    for line in checksums.write(project.dist).read_text().splitlines():
        name = line.split("  ")[1]
        click.echo(f"{(project.dist / name).stat().st_size / 1e6:9.2f} MB  {name}")


def python_files(project: Project, url: str | None) -> None:
    """Wheel, source distribution, the single file, its bill of materials and krew's manifest."""
    say("wheel and source distribution")
    wheel, source = distributions.build(project)
    distributions.try_programs(project, wheel, source)
    say("kubectl-spool as one file")
    program = single_file.build(project, wheel)
    say(f"tried with {', '.join(trial.start(project, program))}")
    trial.push(project, program)
    sbom.build(project, [wheel, *single_file.download(project, TARGETS[0])])
    say("krew")
    if url is None:
        say("krew's manifest has an address that does not exist: give --url or RELEASE_URL")
    krew.build(project, program, url or _NOWHERE.format(version=project.version))


def say(what: str) -> None:
    """Tell how far it has come."""
    click.echo(f"./dev release: {what}")


if __name__ == "__main__":
    main()

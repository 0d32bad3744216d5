"""The command line of `./dev release`: make each artefact, try it, and list them all with their checksums."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click

from release import chart, checksums, distributions, images, sbom
from release.kubectl_spool import krew, single_file, trial
from release.kubectl_spool.platforms import TARGETS
from release.project import ROOT, Project, ReleaseError, source_date_epoch, version

_NOWHERE = "https://registry-spooler.example/download/v{version}"
_PARTS = ("python", "chart", "images")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "dist", help="A folder, emptied first.")
@click.option("--only", type=click.Choice(_PARTS), multiple=True, default=_PARTS, help="Leave the other parts out.")
@click.option("--url", envvar="RELEASE_URL", help="Where the files will be downloaded from, for krew.")
@click.option("--base", envvar="BASE_IMAGE", help="The image's base, if not the Containerfile's; `debian` makes one.")
@click.option(
    "--registry-image",
    envvar="REGISTRY_IMAGE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An archive of the registry's image, in place of a pull.",
)
def main(output: Path, only: tuple[str, ...], url: str | None, base: str | None, registry_image: Path | None) -> None:
    """Make and try everything that a user downloads.

    Each option but --output and --only can be set by a variable: RELEASE_URL, BASE_IMAGE, REGISTRY_IMAGE.
    """
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    project = Project(version(), source_date_epoch(), output.resolve())
    os.chdir(ROOT)
    try:
        if "python" in only:
            make_python_files(project, url)
        if "chart" in only:
            make_chart(project)
        if "images" in only:
            make_images(project, base, registry_image)
    except ReleaseError as exc:
        raise click.ClickException(str(exc)) from exc
    for line in checksums.write(project.dist).read_text().splitlines():
        name = line.split("  ")[1]
        click.echo(f"{(project.dist / name).stat().st_size / 1e6:9.2f} MB  {name}")


def make_python_files(project: Project, url: str | None) -> None:
    """Wheel, source distribution, the single file, its bill of materials and krew's manifest."""
    say("wheel and source distribution")
    wheel, _ = distributions.build(project)
    distributions.try_programs(project, wheel)
    say("kubectl-spool as one file")
    program = single_file.build(project, wheel)
    say(f"tried with {', '.join(trial.start(project, program))}")
    trial.push(project, program)
    sbom.build(project, [wheel, *single_file.download(project, TARGETS[0])])
    say("manifest for krew")
    if url is None:
        say("NOTE: the address in it is nowhere; give the real one with --url")
    manifest = krew.build(project, program, url or _NOWHERE.format(version=project.version))
    if not krew.try_install(project, manifest):
        say("NOTE: not tried: there is neither krew nor Go here")


def make_chart(project: Project) -> None:
    """The Helm chart."""
    say("chart")
    if not chart.check(project, chart.build(project)):
        say("NOTE: not tried: there is neither helm nor Go here")


def make_images(project: Project, base: str | None, registry_image: Path | None) -> None:
    """The image and the all-in-one file, for each architecture that can be built for here."""
    built = list(images.architectures())
    if base == "debian" or registry_image is not None:
        built = built[:1]  # both are of one architecture
    for architecture in built:
        say(f"images for {architecture}")
        images.build(project, architecture, base=base, registry_archive=registry_image)
    for architecture in images.ARCHITECTURES.values():
        if architecture not in built:
            say(f"NOTE: no images for {architecture}, which cannot be built here; run this on such a machine")


def say(what: str) -> None:
    """Tell how far it has come."""
    click.echo(f"./dev release: {what}")


if __name__ == "__main__":
    main()

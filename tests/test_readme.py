"""What README.md and the pages in docs/ say of the programs is what they do, and their links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import readme
from registry_spooler.spool.filename import FileName
from support.programs.running_spooler import RunningSpooler, Spool

TEXT = readme.all_text()
HELP = [block for block in readme.blocks(TEXT) if block.mark == "help"]
README_LINES_MAX = 200
LINE_MAX_COLUMNS = 100
PROGRAMS = ("registry-spooler", "registry-client", "kubectl-spool")
RULES = readme.ROOT / "manifests/components/monitoring/rules.yaml"


def named(page: Path) -> str:
    return str(page.relative_to(readme.ROOT))


@pytest.mark.parametrize("block", HELP, ids=lambda block: block.argument)
def test_help_is_what_the_program_prints(block):
    assert block.content == readme.help_text(block.argument), "./dev readme writes it anew"


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_has_its_help(program):
    shown = [block.argument for block in HELP]
    assert sorted(shown) == sorted(set(shown))
    assert {program, *(f"{program} {command}" for command in readme.commands(program))} == {
        argument for argument in shown if argument.partition(" ")[0] == program
    }


@pytest.mark.parametrize(("name", "reference"), readme.names(TEXT))
def test_a_name_means_what_the_table_says(name, reference):
    assert str(FileName.parse(name).reference) == reference


@pytest.mark.parametrize("example", readme.examples(TEXT), ids=lambda example: example.script.splitlines()[0][:40])
def test_an_example_does_what_it_shows(example, make_registry, tmp_path):
    registry, spool = make_registry(), Spool(tmp_path / "spool")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SPOOL": str(spool.folder),
        "REGISTRY_CLIENT_REGISTRY": registry.url,
        "REGISTRY_CLIENT_DIRECTORY": str(spool.folder),
    }
    with RunningSpooler(spool, registry.url):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", example.script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == 0, done.stderr
    assert example.prints is None or done.stdout == example.prints


@pytest.mark.parametrize("page", readme.LINKED_PAGES, ids=named)
def test_links_lead_to_files_and_headings(page):
    for target, anchor in readme.links(page):
        assert target.exists(), f"there is no {target}"
        assert not anchor or anchor in readme.anchors(target.read_text()), f"{target} has no heading #{anchor}"


def test_the_readme_is_read_within_two_minutes():
    assert len(readme.README.read_text().splitlines()) <= README_LINES_MAX


@pytest.mark.parametrize("page", readme.PAGES, ids=named)
def test_prose_fits_a_terminal(page):
    prose = [line for line in readme.prose(page.read_text()).splitlines() if not line.startswith("|")]
    assert [] == [line for line in prose if len(line) > LINE_MAX_COLUMNS and "](" not in line]


@pytest.mark.parametrize("page", readme.PAGES, ids=named)
def test_a_page_begins_with_where_its_sections_are(page):
    """Each second-level heading is linked once, before the first of them, on pages that have three or more."""
    text = readme.prose(page.read_text())
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    contents = re.findall(r"\]\(#([^)]+)\)", text.partition("\n## ")[0])
    wanted = [anchor for section in sections for anchor in readme.anchors(f"## {section}")]
    assert contents == wanted if len(sections) > 2 else set(contents) <= set(wanted)


def test_every_alert_is_explained():
    groups = yaml.safe_load(RULES.read_text())["spec"]["groups"]
    explained = re.findall(r"^\*\*`(\w+)`\*\* \((\w+)\)", (readme.ROOT / "docs/operating.md").read_text(), re.MULTILINE)
    assert [(rule["alert"], rule["labels"]["severity"]) for group in groups for rule in group["rules"]] == explained


def test_nothing_is_checked_by_accident():
    assert {block.argument.partition(" ")[0] for block in HELP} == set(PROGRAMS)
    assert all(readme.commands(program) for program in PROGRAMS[1:])
    assert len(readme.names(TEXT)) >= 5
    assert len(readme.examples(TEXT)) >= 1
    assert {named(page) for page in readme.PAGES} >= {"README.md", "docs/install.md", "docs/reference.md"}
    assert sum(1 for page in readme.LINKED_PAGES for _ in readme.links(page)) >= 50

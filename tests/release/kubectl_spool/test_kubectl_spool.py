"""What is released, as far as it can be made within seconds: the single file's start, checksums, krew's manifest."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from release import checksums
from release.kubectl_spool import bootstrap, krew, platforms, single_file, trial
from release.project import ROOT, Project, ReleaseError, version

PROGRAM = """
import sys
from importlib.metadata import version
def main():
    print("main", version("example"), __file__)
def other():
    print("other", *sys.argv[1:])
"""
SCRIPTS = {"kubectl-spool": "example:main", "kubectl_complete-spool": "example:other"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    dist = tmp_path / "dist"
    dist.mkdir()
    return Project(version(), 1_700_000_000, dist)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return make_wheel(tmp_path / "example-1.5-py3-none-any.whl")


def make_wheel(path: Path, **more: str) -> Path:
    with zipfile.ZipFile(path, "w") as files:
        files.writestr("example.py", PROGRAM)
        files.writestr("example-1.5.dist-info/METADATA", "Metadata-Version: 2.1\nName: example\nVersion: 1.5\n")
        for name, content in more.items():
            files.writestr(name, content)
    return path


@pytest.fixture
def program(project: Project, wheel: Path) -> Path:
    output = project.dist / "kubectl-spool"
    single_file.write(output, SCRIPTS, {bootstrap.this_target(): [wheel]})
    return output


class User:
    """Starts the file as a user with a home of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.home.mkdir()
        self.cache = home / ".cache" / "kubectl-spool"
        (home / "bin").mkdir()
        (home / "bin" / "python3").symlink_to(sys.executable)

    def start(self, program: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [program, *arguments],
            env={"HOME": str(self.home), "PATH": f"{self.home}/bin:/usr/bin:/bin", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, program: Path, *arguments: str, code: int = 0, **environment: str) -> str:
        process = self.start(program, *arguments, **environment)
        stdout, stderr = process.communicate()
        assert code == process.returncode, stderr
        return stdout or stderr


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path / "home")


def test_the_file_unpacks_once_and_runs(program: Path, user: User) -> None:
    first = user.run(program)
    [folder] = user.cache.iterdir()
    unpacked = (folder / "example.py").stat().st_mtime_ns

    assert f"main 1.5 {folder}/example.py\n" == first == user.run(program)
    assert unpacked == (folder / "example.py").stat().st_mtime_ns
    assert 0o700 == stat.S_IMODE(user.cache.stat().st_mode)


def test_the_name_that_it_is_called_by_chooses_the_program(program: Path, user: User) -> None:
    link = user.home / "kubectl_complete-spool"
    link.symlink_to(program)
    renamed = user.home / "anything"
    renamed.symlink_to(program)

    assert "other push a\n" == user.run(link, "push", "a")
    assert user.run(renamed).startswith("main 1.5")


def test_many_that_start_at_once_share_one_folder(program: Path, user: User) -> None:
    started = [user.start(program) for _ in range(6)]
    printed = {process.communicate() for process in started}

    [folder] = user.cache.iterdir()
    assert {(f"main 1.5 {folder}/example.py\n", "")} == printed


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_cache_that_others_can_write_to_is_not_used(program: Path, user: User, tmp_path: Path, mode: int) -> None:
    user.cache.mkdir(parents=True)
    user.cache.chmod(mode)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    assert str(scratch) in user.run(program, TMPDIR=str(scratch))
    assert [] == [*user.cache.iterdir(), *scratch.iterdir()]


def test_a_cache_that_is_a_link_is_not_used(program: Path, user: User, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    user.cache.parent.mkdir()
    user.cache.symlink_to(elsewhere)

    assert user.run(program).startswith("main")
    assert [] == [*elsewhere.iterdir()]


def test_without_a_place_for_a_cache_it_runs_all_the_same(program: Path, user: User) -> None:
    (user.home / ".cache").write_text("not a folder")

    assert user.run(program).startswith("main")


def test_other_contents_get_another_folder(program: Path, user: User, tmp_path: Path) -> None:
    user.run(program)
    changed = make_wheel(tmp_path / "example-1.6-py3-none-any.whl", more="")
    single_file.write(program, SCRIPTS, {bootstrap.this_target(): [changed]})
    user.run(program)

    assert 2 == len([*user.cache.iterdir()])


def test_a_machine_that_it_is_not_made_for_is_told_what_to_do(project: Project, wheel: Path, user: User) -> None:
    program = project.dist / "kubectl-spool"
    single_file.write(program, SCRIPTS, {"3.11-plan9-mips": [wheel]})

    assert (
        f"kubectl-spool: is not made for {bootstrap.this_target()}; "
        "install it with: pip install 'registry-spooler[client]'\n"
    ) == user.run(program, code=1)


def test_it_is_the_same_each_time(project: Project, wheel: Path, program: Path) -> None:
    before = program.read_bytes()
    os.utime(wheel, (1, 1))
    single_file.write(program, SCRIPTS, {bootstrap.this_target(): [wheel]})

    assert before == program.read_bytes()


def test_a_wheel_that_cannot_be_just_unpacked_is_refused(project: Project, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "e-1.whl", **{"example-1.5.data/data/etc/x": ""})
    with pytest.raises(ReleaseError, match="puts files elsewhere"):
        single_file.write(project.dist / "kubectl-spool", SCRIPTS, {"x": [wheel]})


def test_a_target_is_named_as_the_start_names_it() -> None:
    assert bootstrap.this_target() in map(str, platforms.TARGETS)
    assert bootstrap.NEWEST == tuple(map(int, platforms.PYTHONS[-1].split(".")))
    assert bootstrap.OLDEST == tuple(map(int, platforms.PYTHONS[0].split(".")))


def test_a_target_needs_what_its_markers_say() -> None:
    def names(target: platforms.Target) -> set[str]:
        pins = single_file.pinned_for(target, single_file.REQUIREMENTS.read_text())
        return {line.split("==")[0] for line in pins.splitlines() if "==" in line}

    old, new = (platforms.Target(python, "macos", "arm64") for python in ("3.13", "3.14"))
    linux = platforms.Target("3.13", "linux", "x86_64")
    assert {"backports-zstd"} == names(old) - names(new)
    assert {"asyncinotify", "prometheus-client"} == names(linux) - names(old)
    assert len(names(linux)) == len(re.findall(r"(?m)^\S+==", single_file.REQUIREMENTS.read_text()))


def test_sha256sum_reads_the_checksums(project: Project, program: Path) -> None:
    checksums.write(project.dist)
    (project.dist / "other").write_text("x")
    checksums.write(project.dist)

    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=project.dist, capture_output=True, text=True, check=True
    )
    assert "kubectl-spool: OK\nother: OK\n" == checked.stdout


def test_the_manifest_for_krew_fits_its_archive(project: Project, program: Path) -> None:
    manifest: dict[str, Any] = yaml.safe_load(krew.build(project, program, "https://x.example/v1").read_text())

    assert {"name": "spool"} == manifest["metadata"]
    spec = manifest["spec"]
    assert f"v{project.version}" == spec["version"]
    assert len(spec["shortDescription"]) <= 50
    archive = project.dist / f"kubectl-spool-{project.version}.tar.gz"
    with tarfile.open(archive) as tar:
        assert {"LICENSE": 0o644, "kubectl-spool": 0o755} == {entry.name: entry.mode for entry in tar}
    assert 1_700_000_000 == int.from_bytes(archive.read_bytes()[4:8], "little")
    for platform in spec["platforms"]:
        assert (f"https://x.example/v1/{archive.name}", checksums.sha256(archive), "kubectl-spool") == (
            platform["uri"],
            platform["sha256"],
            platform["bin"],
        )
    assert 4 == len({tuple(platform["selector"]["matchLabels"].values()) for platform in spec["platforms"]})


@pytest.mark.parametrize("test", trial.PUSH_TESTS)
def test_the_tests_that_the_released_program_has_to_pass_are_there(test: str) -> None:
    path, _, name = test.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text()

"""The command line of `./dev fuzz`."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import click

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "fuzz"
NAMES = (
    "tar",
    "manifest",
    "docker",
    "challenge",
    "location",
    "frames",
    "filename",
    "dockerconfig",
    "signature",
    "recipe",
)
INPUT_SECONDS = 10
"""An input that takes longer is a find: the reader hangs, or nearly so."""
MEMORY_MIB = 1024
JSON_SHARE = 4
"""Of so many changes to a JSON document all but one are made to its values, and one to its bytes."""


@click.command()
@click.argument("target", type=click.Choice(NAMES), required=False)
@click.option("--seconds", default=60, show_default=True, type=click.IntRange(1), help="For each target.")
@click.option("--input", "inputs", multiple=True, type=click.Path(exists=True, path_type=Path), help="Run this alone.")
def main(target: str | None, seconds: int, inputs: tuple[Path, ...]) -> None:
    """Fuzz one TARGET, or all of them one after the other."""
    if target is not None:
        fuzz(target, seconds, inputs)
        return
    results = {name: subprocess.run([sys.executable, "-m", "fuzz", name, f"--seconds={seconds}"]) for name in NAMES}
    found = [name for name, result in results.items() if result.returncode]
    click.echo(f"fuzz: {len(NAMES)} targets, {seconds} s each; found something: {', '.join(found) or 'none'}")
    sys.exit(bool(found))


def fuzz(name: str, seconds: int, inputs: tuple[Path, ...]) -> None:
    """Run one target under libFuzzer, which ends this process: 0, or another code when something was found."""
    import atheris

    with atheris.instrument_imports(include=["registry_spooler"]):
        from fuzz.targets import TARGETS
    from fuzz.mutation import mutate_json

    target, corpus = TARGETS[name], CACHE / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    (CACHE / f"{name}.found").mkdir(exist_ok=True)

    def mutate(data: bytes, max_bytes: int, seed: int) -> bytes:
        changed = mutate_json(data, max_bytes, seed) if seed % JSON_SHARE else None
        return changed if changed is not None else atheris.Mutate(data, max_bytes)

    arguments = [
        *("fuzz", f"-max_total_time={seconds}", f"-timeout={INPUT_SECONDS}", f"-rss_limit_mb={MEMORY_MIB}"),
        *(f"-max_len={target.max_bytes}", f"-artifact_prefix={CACHE / name}.found/", "-print_final_stats=1"),
        *(map(str, inputs) if inputs else [str(corpus)]),
    ]
    more = {"custom_mutator": mutate} if target.is_json else {}
    atheris.Setup(arguments, target.check, **more)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

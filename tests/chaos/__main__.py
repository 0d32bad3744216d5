"""The command line of `./dev chaos`."""

from __future__ import annotations

import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import click

from chaos.rounds import Result, play


@click.command()
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--seed", type=int, help="Of the first round; the next ones count on. Random when not given.")
@click.option(
    "--spoolers", type=click.IntRange(1, 3), help="On one directory. Each round has its own number if not given."
)
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1), help="Rounds at the same time.")
@click.option("--verbose", "-v", is_flag=True, help="Print what every round did.")
def main(rounds: int, seed: int | None, spoolers: int | None, jobs: int, verbose: bool) -> None:
    """Play rounds of random operations and faults, and check that nothing was lost."""
    first = seed if seed is not None else random.randrange(1 << 31)
    began, results = time.monotonic(), list[Result]()
    try:
        with ProcessPoolExecutor(jobs) as processes:
            for result in processes.map(partial(play, spoolers=spoolers), range(first, first + rounds)):
                results.append(result)
                _report(result, verbose)
    finally:
        failed = [result.seed for result in results if result.complaints]
        seeds = f" (seeds {' '.join(map(str, failed))})" if failed else ""
        click.echo(
            f"chaos: {len(results)} rounds from seed {first}, {len(failed)} failed{seeds}; "
            f"{sum(result.files for result in results):,} files, {sum(result.faults for result in results):,} faults, "
            f"{time.monotonic() - began:,.0f} s"
        )
    sys.exit(bool(failed))


def _report(result: Result, verbose: bool) -> None:
    if verbose:
        click.echo("\n".join(result.story))
    if not result.complaints:
        return
    click.echo(f"seed {result.seed}: failed after {result.seconds:.1f} s; everything is kept in {result.folder}")
    for complaint in result.complaints:
        click.echo(f"  {complaint}")


if __name__ == "__main__":
    main()

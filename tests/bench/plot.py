"""The main table as bars: wall and processor time of every contestant, archive by archive."""

from __future__ import annotations

from pathlib import Path

from bench.pushes import Table

MEASURES = {
    "wall_seconds": "wall, s",
    "client_cpu_seconds": "client's CPU, s",
    "registry_cpu_seconds": "registry's CPU, s",
}
COLOURS = {"spooler": "#1f6feb", "digests": "#54aeff", "client": "#b6e3ff", "skopeo": "#bf8700", "floor": "#8c959f"}


def write_plot(table: Table, path: Path, title: str) -> bool:
    """Draw the table into a file; False when matplotlib is not installed, as it need not be."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot

    cases = list(dict.fromkeys(row.case for row in table.rows))
    contestants = list(dict.fromkeys(row.contestant for row in table.rows))
    figure, panels = pyplot.subplots(1, len(MEASURES), figsize=(4 * len(MEASURES), 4), layout="constrained")
    height = 0.8 / len(contestants)
    for panel, (measure, label) in zip(panels, MEASURES.items(), strict=True):
        for number, contestant in enumerate(contestants):
            rows = [table.row(case, contestant) for case in cases]
            values = [(row.median(measure) if row else None) or 0 for row in rows]
            places = [place + number * height for place in range(len(cases))]
            panel.barh(places, values, height, label=contestant, color=COLOURS.get(contestant))
        panel.set_yticks([place + 0.4 - height / 2 for place in range(len(cases))], cases)
        panel.invert_yaxis()
        panel.set_xlabel(label)
    panels[0].legend()
    figure.suptitle(title, fontsize="small")
    figure.savefig(path)
    pyplot.close(figure)
    return True

"""The metrics as OpenMetrics that older tools can read too, https://prometheus.io/docs/specs/om/open_metrics_spec/.

OpenMetrics names a counter's family without `_total` and its samples with it. `promtool check metrics` reads this as
the older text format, does not connect the two, and finds samples without help. So counters are written as families
of no stated type under their samples' names, which both formats read alike; Prometheus computes the same from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_NO_TYPE: Final = b" unknown"


def generate(registry: CollectorRegistry) -> bytes:
    """All that the registry holds."""
    lines = generate_latest(_Retyped(registry)).split(b"\n")  # type: ignore[no-untyped-call] # prometheus_client has no types here
    return b"\n".join(line for line in lines if not (line.startswith(b"# TYPE ") and line.endswith(_NO_TYPE)))


class _Retyped(Collector):
    """The families of another collector, counters without their type."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterator[Metric]:
        """Family by family."""
        for family in self._collector.collect():
            if family.type != "counter":
                yield family
                continue
            retyped = Metric(f"{family.name}_total", family.documentation, "unknown")
            retyped.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield retyped

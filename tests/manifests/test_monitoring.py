"""The alert rules and the dashboard: tested by promtool, and asking for no metric that there is not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry_spooler.health.metrics import Metrics
from registry_spooler.health.probes import Checks, LoopLag, Volume
from registry_spooler.spool.settings import SpoolSettings
from registry_spooler.spool.spool import Spool

HERE = Path(__file__).resolve().parent
MONITORING = HERE.parent.parent / "manifests" / "components" / "monitoring"
METRIC = re.compile(r"\b(?:registry_spooler|process)_[a-z_]+")


def promtool(*arguments: str, folder: Path) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The rules as Prometheus reads them: what the operator takes out of the PrometheusRule."""
    document = yaml.safe_load((MONITORING / "rules.yaml").read_text())
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(document["spec"]))
    return tmp_path


@pytest.fixture
async def metrics(tmp_path: Path) -> set[str]:
    """The names of all samples that a spooler shows."""
    state, lag, volume = Spool(SpoolSettings(directory=tmp_path)).state, LoopLag(), Volume(tmp_path)
    state.last_success = time.time()
    shown = Metrics("1.2.3", state, Checks(state, lag, volume), volume, lag, {})
    await shown.process.read()
    text = shown.exposition("")[0].decode()
    return set(re.findall(r"^(\w+)", text, re.MULTILINE))


def test_the_rules_are_valid_and_fire_when_they_should(rules: Path) -> None:
    promtool("check", "rules", "rules.yaml", folder=rules)
    shutil.copy(HERE / "rules.test.yaml", rules)
    assert "SUCCESS" in promtool("test", "rules", "rules.test.yaml", folder=rules)


def test_every_alert_is_tested(rules: Path) -> None:
    alerts = {rule["alert"] for group in _load(rules / "rules.yaml")["groups"] for rule in group["rules"]}
    tested = {
        case["alertname"]
        for test in _load(HERE / "rules.test.yaml")["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert alerts == tested


def test_rules_ask_for_metrics_that_there_are(rules: Path, metrics: set[str]) -> None:
    expressions = [rule["expr"] for group in _load(rules / "rules.yaml")["groups"] for rule in group["rules"]]
    assert set() == {name for expression in expressions for name in METRIC.findall(expression)} - metrics


def test_the_dashboard_asks_for_metrics_that_there_are(metrics: set[str]) -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    asked = {name for text in _expressions(dashboard) for name in METRIC.findall(text)}
    assert set() == asked - metrics
    assert len(asked) > 15


def test_the_dashboard_shows_what_nobody_works_on_and_every_pod() -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    asked = " ".join(_expressions(dashboard))
    for name in ("stale_files", "odd_entries", "failed_files", "event_loop_lag_seconds", "spool_size_bytes"):
        assert f"registry_spooler_{name}{{" in asked
    for name in (
        "request_retries_total",
        "remote_transfers",
        "remote_received_bytes_total",
        "remote_saved_bytes_total",
    ):
        assert f"registry_spooler_{name}{{" in asked
    assert "sum(up{" in asked
    for panel in dashboard["panels"]:
        assert "Done again" != panel["title"]
    # Pods that share a spool tell the same number: not a maximum over all installations, and not a sum over all pods.
    assert "max(registry_spooler_failed_files" not in asked
    assert "sum(max by (namespace, job) (registry_spooler_failed_files{" in asked


def test_the_dashboards_queries_are_valid(tmp_path: Path) -> None:
    """promtool reads each as a recording rule, with Grafana's variables filled in."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    recorded = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m").replace("$", "")}
        for number, expression in enumerate(_expressions(dashboard))
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    promtool("check", "rules", "rules.yaml", folder=tmp_path)


def test_the_dashboards_panels_do_not_overlap() -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells
        assert max(x for x, _ in cells) < 24
        assert panel["title"]
        assert panel["description"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def _expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def _load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document

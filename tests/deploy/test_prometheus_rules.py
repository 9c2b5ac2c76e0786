"""deploy/prometheus is what Prometheus takes, and its alerts fire when they should and not when they should not."""

from __future__ import annotations

import re
import subprocess
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.monitoring import PROMETHEUS_FOLDER, PROMTOOL, load, metrics_of, needs_prometheus, rules
from tests.edges import ROOT

TESTS = sorted((PROMETHEUS_FOLDER / "tests").glob("*.yml"))
ALERTS = rules("alerts")


def promtool(*arguments: str | Path) -> str:
    """What it printed; it must have succeeded."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=50, cwd=PROMETHEUS_FOLDER)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return output


@needs_prometheus
def test_the_configuration_is_valid() -> None:
    """The configuration with its files of targets and rules, and the rules without duplicates."""
    assert "SUCCESS: 2 rule files found" in promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "--lint=all", "--lint-fatal", "rules/recording.yml", "rules/alerts.yml")


@needs_prometheus
def test_the_configuration_for_kubernetes_is_valid(tmp_path: Path) -> None:
    """All of it but the discovery of pods, which Debian's Prometheus is built without."""
    config = load("kubernetes.yml")
    (scrape,) = config["scrape_configs"]
    (discovery,) = scrape.pop("kubernetes_sd_configs")
    assert discovery["role"] == "pod"
    assert discovery["selectors"] == [{"role": "pod", "label": "app.kubernetes.io/name=runcast"}]
    config["rule_files"] = [str(PROMETHEUS_FOLDER / name) for name in config["rule_files"]]
    scrape["static_configs"] = [{"targets": ["pod:9090"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    promtool("check", "config", tmp_path / "prometheus.yml")


@needs_prometheus
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should(path: Path) -> None:
    """Every case of deploy/prometheus/tests comes out as it says."""
    promtool("test", "rules", path)


def cases() -> dict[str, list[bool]]:
    """Alert → for each look at it, whether it is expected to fire."""
    found: dict[str, list[bool]] = defaultdict(list)
    for path in TESTS:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for look in case["alert_rule_test"]:
                found[look["alertname"]].append(bool(look["exp_alerts"]))
    return found


def test_every_alert_is_seen_firing_and_not_firing() -> None:
    """No alert is untested, and none is tested that is not there."""
    assert {name: {*fired} for name, fired in cases().items()} == {rule["alert"]: {True, False} for rule in ALERTS}


def test_rules_are_evaluated_in_the_order_of_their_files() -> None:
    """Else an alert would be tested with what was recorded a step before, by chance."""
    groups = [group["name"] for name in ("recording", "alerts") for group in load(f"rules/{name}.yml")["groups"]]
    for path in TESTS:
        assert yaml.safe_load(path.read_text())["group_eval_order"] == groups


def test_every_alert_tells_what_to_know() -> None:
    """A severity that somebody routes by, a summary, a description with a number, and a place in the runbook."""
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning")
        notes = rule["annotations"]
        assert {*notes} == {"summary", "description", "runbook"}
        assert len(notes["summary"]) < 80
        assert re.search(r"\$value|\d", notes["description"]), f"{rule['alert']}: no number"
    assert max(Counter(rule["alert"] for rule in ALERTS).values()) == 1


def anchors(text: str) -> set[str]:
    """Of a Markdown file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_runbook_is_there() -> None:
    """The place that an alert names is a heading of that file."""
    for rule in ALERTS:
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert anchor in anchors((ROOT / file).read_text()), rule["alert"]


def test_labels_that_tell_installations_apart_are_kept() -> None:
    """No rule adds up two installations: whoever aggregates keeps `namespace`."""
    for rule in rules("recording") + ALERTS:
        for kept in re.findall(r"\b(?:sum|max|min|avg|count)(?:\s+by\s+\(([^)]*)\))?\s*\(", rule["expr"]):
            assert "namespace" in kept, rule


def test_what_is_recorded_is_used() -> None:
    """By an alert or a dashboard, or by another recording."""
    recorded = {rule["record"] for rule in rules("recording")}
    boards = "".join(path.read_text() for path in (ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
    used = set().union(*(metrics_of(rule["expr"]) for rule in rules("recording") + ALERTS))
    assert {name for name in recorded if name not in used and name not in boards} == set()
    assert {name for name in used if ":" in name} <= recorded


def test_windows_of_a_service_level_are_alike() -> None:
    """What is recorded of it over five windows differs in nothing but the window, which is the one of its name."""
    alike: dict[str, set[str]] = defaultdict(set)
    windows: dict[str, set[str]] = defaultdict(set)
    for rule in rules("recording"):
        if found := re.fullmatch(r"(runcast:\w+:(?:ratio_)?rate)(\d+[mhd])", rule["record"]):
            name, window = found.groups()
            windows[name].add(window)
            alike[name].add(rule["expr"].replace(f"[{window}]", "[w]").replace(f":rate{window}", ":rate_w"))
    assert len(alike) == 4
    for name, exprs in alike.items():
        (expr,) = exprs
        assert {*re.findall(r"\[\w+\]", expr)} == {"[w]"}
        assert windows[name] == {"5m", "30m", "1h", "6h", "3d"}


def test_everything_of_compose_is_scraped() -> None:
    """The targets are the compose file's edges and workers, at the port of their settings."""
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]

    def addresses(name: str) -> list[str]:
        found: list[dict[str, Any]] = load(f"targets/{name}.yml")
        return [address for each in found for address in each["targets"]]

    for name in ("edge", "worker"):
        assert addresses(f"{name}s") == [f"{service}:9090" for service in services if service.startswith(f"{name}-")]

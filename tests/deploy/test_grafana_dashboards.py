"""deploy/grafana without Grafana: its files fit together, and ask for what is there."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.base.metrics import Metrics as EdgeMetrics
from broker.ops.redis_metrics import COUNTERS, GAUGES
from emitter.worker.metrics import Metrics as WorkerMetrics
from tests.deploy.monitoring import GRAFANA_FOLDER, dashboards, metrics_of, panels, rules, targets
from tests.edges import ROOT

UNITS = {"short", "ops", "s", "bytes", "Bps", "percentunit", "none", "bool_yes_no"}
# What Prometheus and its Python client make by themselves.
OTHERS = {"up", "ALERTS", "process_start_time_seconds"}


def exported() -> set[str]:
    """Every metric of an edge and of a worker."""
    told = {"runcast_redis_up", *(f"runcast_redis_{fact.name}" for fact in GAUGES)}
    told |= {f"runcast_redis_{fact.name}_total" for fact in COUNTERS}
    registries = (EdgeMetrics().registry, WorkerMetrics(["a"]).registry)
    samples = {s.name for registry in registries for family in registry.collect() for s in family.samples}
    return told | {name for name in samples if not name.endswith("_created")}


def expressions() -> Iterator[tuple[str, str]]:
    """Every query of the dashboards, and every rule, with its place."""
    for name in ("recording", "alerts"):
        for rule in rules(name):
            yield rule.get("record") or rule["alert"], rule["expr"]
    yield from targets()
    for name, dashboard in dashboards().items():
        for annotation in dashboard["annotations"]["list"]:
            yield name, annotation["target"]["expr"]
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                found = re.fullmatch(r"label_values\((.+), \w+\)", variable["definition"])
                assert found is not None
                yield name, found[1]


def test_the_files_are_what_their_source_makes(tmp_path: Path) -> None:
    """Nobody edited one by hand, or forgot to write them anew."""
    subprocess.run([sys.executable, GRAFANA_FOLDER / "source", tmp_path], check=True, timeout=20)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    there = {path.name: path.read_text() for path in (GRAFANA_FOLDER / "dashboards").iterdir()}
    assert made == there, "run `python deploy/grafana/source`"
    assert {*dashboards()} == {"overview", "edge", "workers", "redis", "slo"}


def test_only_what_is_exported_is_asked_for() -> None:
    """No panel, rule or variable reads a metric that neither an edge nor a worker has."""
    known = exported() | OTHERS | {rule["record"] for rule in rules("recording")}
    unknown = [(place, name) for place, expr in expressions() for name in metrics_of(expr) if name not in known]
    assert unknown == []


def test_every_metric_is_on_a_dashboard() -> None:
    """What is counted can be seen, at least as what a rule makes of it."""
    recorded = {rule["record"]: metrics_of(rule["expr"]) for rule in rules("recording")}
    shown = set().union(*(metrics_of(target.expr) for target in targets()))
    for name in shown & {*recorded}:
        shown |= recorded[name]
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported() if name.startswith("runcast_")}
    seen = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert families <= seen


def test_a_metrics_name_is_read_out_of_an_expression() -> None:
    """The check above sees names, and neither labels, functions, words nor values."""
    expr = 'sum by (le, x) (rate(a_b{c="d e",f=~"g"}[5m])) > 0.8 and on (h) i:j:k unless max(l) by (m) or vector(0)'
    assert metrics_of(expr) == {"a_b", "i:j:k", "l"}


def test_dashboards_have_names_of_their_own() -> None:
    """Titles and uids are unique, and so are panels' ids within a dashboard; no file has the id of a database."""
    all_ = [*dashboards().values()]
    for key in ("uid", "title"):
        assert len({dashboard[key] for dashboard in all_}) == len(all_)
    for dashboard in all_:
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(ids) == len({*ids})
        assert "id" not in dashboard
        assert dashboard["tags"] == ["runcast"]


@pytest.mark.parametrize("name", dashboards())
def test_panels_neither_overlap_nor_leave_the_grid(name: str) -> None:
    """Each cell of the 24 columns belongs to one panel at most."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboards()[name]["panels"]:
        place = panel["gridPos"]
        cells = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert place["x"] + place["w"] <= 24
        assert cells
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_panel_says_what_it_shows() -> None:
    """A title, a sentence or more of description, a unit of a short list, and legends that tell series apart."""
    for place, panel in panels():
        assert len(panel["description"]) > 15, place
        assert panel["description"].endswith("."), place
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, place
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, place
        legends = [each["legendFormat"] for each in panel["targets"]]
        assert len(legends) == len({*legends}), place
        refs = [each["refId"] for each in panel["targets"]]
        assert len(refs) == len({*refs}), place


def test_a_legend_names_every_label_that_is_kept() -> None:
    """`by (x)` without `{{x}}` in the legend would draw two lines of one name."""
    for place, panel in panels():
        for each in panel["targets"]:
            outer = re.match(r"\(?(?:sum|max|min) by \(([^)]*)\)", each["expr"])
            for label in re.findall(r"\w+", outer[1]) if outer else []:
                assert f"{{{{{label}}}}}" in each["legendFormat"], (place, label)


def test_a_panel_of_a_unit_with_thresholds_has_them_in_order() -> None:
    """Steps rise, and the first has no value."""
    for place, panel in panels():
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        values = [step["value"] for step in steps]
        assert values[0] is None, place
        assert values[1:] == sorted(values[1:]), place


def test_variables_are_used_and_declared() -> None:
    """A dashboard has no choice without an effect; every query is held to the installation that was chosen."""
    for name, dashboard in dashboards().items():
        declared = {variable["name"] for variable in dashboard["templating"]["list"]}
        text = json.dumps([dashboard["panels"], dashboard["annotations"]])
        used = {*re.findall(r"\$\{?([a-z]\w*)", text)}
        assert used == declared, name
    for place, expr in expressions():
        if "$" in expr:
            assert '=~"$namespace"' in expr, place


def test_what_compose_mounts_is_provisioned() -> None:
    """Grafana finds the data source at the compose file's Prometheus, and the dashboards where they are mounted."""
    compose: Any = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    (source,) = yaml.safe_load((GRAFANA_FOLDER / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((GRAFANA_FOLDER / "provisioning/dashboards/runcast.yml").read_text())["providers"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == scraped["scrape_interval"]
    mounts = dict(mount.split(":")[:2] for mount in compose["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./grafana/provisioning"] == compose["grafana"]["environment"]["GF_PATHS_PROVISIONING"]

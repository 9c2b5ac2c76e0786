"""What Grafana's JSON of a dashboard is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Json = dict[str, Any]

SCHEMA_VERSION = 41
WIDTH = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
GOOD, WARN, BAD, INFO, PALE = "green", "orange", "red", "blue", "#8e8e8e"
# What a label's value means is a colour, the same on every dashboard.
COLOURS = {
    GOOD: ("finished", "ok", "accepted", "completed"),
    INFO: ("draining", "aged", "repeated", "superseded", "handed_over"),
    PALE: ("gone", "cancelled", "limit", "slots", "maxmemory"),
    WARN: ("slow", "gap", "trimmed", "unknown", "timeout", "expired"),
    BAD: ("lost_redis", "refused", "reset", "diverged", "failed", "lost", "unwritten", "error"),
}
COLOURED = {"{{reason}}", "{{result}}", "{{outcome}}", "{{verdict}}"}
LIMITS = {"limit", "slots", "maxmemory"}


class Query(NamedTuple):
    """An expression, and how its series are called."""

    expr: str
    legend: str = ""
    instant: bool = False


class Threshold(NamedTuple):
    value: float
    colour: str


class Panel(NamedTuple):
    """`description` says what is normal, or what to do where it is not."""

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    thresholds: Sequence[Threshold] = ()
    base: str = GOOD
    stack: bool = False
    least: float | None = 0
    most: float | None = None
    decimals: int | None = None


class Row(NamedTuple):
    title: str
    panels: Sequence[Panel]


class Variable(NamedTuple):
    """A choice of the values of a label; all of them by default."""

    name: str
    label: str
    values: str


class Dashboard(NamedTuple):
    uid: str
    title: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]


def dashboard_json(dashboard: Dashboard) -> Json:
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["runcast"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,  # one crosshair over all panels
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [_starts()]},
        "links": [_siblings()],
        "templating": {"list": [_datasource(), *map(_variable, dashboard.variables)]},
        "panels": _placed(dashboard.rows),
    }


def _starts() -> Json:
    """Marks where a process began: most changes have a rollout behind them."""
    return {
        "name": "Process starts",
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": INFO,
        "target": {
            "refId": "Anno",
            "expr": 'changes(process_start_time_seconds{job=~"(.*/)?runcast-(edge|worker)",namespace=~"$namespace"}'
            "[$__rate_interval]) > 0",
        },
        "titleFormat": "{{instance}} began",
    }


def _siblings() -> Json:
    return {
        "type": "dashboards",
        "title": "Runcast",
        "tags": ["runcast"],
        "icon": "dashboard",
        "tooltip": "",
        "asDropdown": False,
        "targetBlank": False,
        "includeVars": True,
        "keepTime": True,
    }


def _datasource() -> Json:
    return {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus", "refresh": 1}


def _variable(variable: Variable) -> Json:
    query = f"label_values({variable.values}, {variable.name})"
    return {
        "type": "query",
        "name": variable.name,
        "label": variable.label,
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "Variable"},
        "refresh": 2,  # when the time range changes: what is gone can be chosen where it was
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",  # also what lacks the label
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _placed(rows: Sequence[Row]) -> list[Json]:
    """Panels from left to right; a line is as high as its highest panel."""
    placed: list[Json] = []
    y = 0
    for row in rows:
        placed.append(_row(row, len(placed) + 1, y))
        x, y, line = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, line = 0, y + line, 0
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            placed.append({"id": len(placed) + 1, "gridPos": place, **_panel(panel)})
            x, line = x + panel.width, max(line, panel.height)
        y += line
    return placed


def _row(row: Row, number: int, y: int) -> Json:
    place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
    return {"id": number, "type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(panel: Panel) -> Json:
    assert len(panel.queries) <= 26
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "targets": [_target(chr(65 + number), query, panel) for number, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": OPTIONS[panel.kind],
    }


def _target(ref: str, query: Query, panel: Panel) -> Json:
    shape = {"heatmap": "heatmap", "table": "table"}.get(panel.kind, "time_series")
    return {
        "refId": ref,
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "format": shape,
        "instant": query.instant,
        "range": not query.instant,
    }


def _defaults(panel: Panel) -> Json:
    steps = [{"color": panel.base, "value": None}, *({"color": t.colour, "value": t.value} for t in panel.thresholds)]
    limits = {"min": panel.least, "max": panel.most, "decimals": panel.decimals}
    return {
        "unit": panel.unit,
        **{name: value for name, value in limits.items() if value is not None},
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": [{"type": "special", "options": {"match": "nan", "result": {"text": "no traffic", "index": 0}}}],
        "noValue": "no data",
        "custom": _custom(panel),
    }


def _custom(panel: Panel) -> Json:
    if panel.kind != "timeseries":
        return {}
    return {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 40 if panel.stack else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if panel.thresholds else "off"},
        "axisSoftMin": 0,
    }


def _overrides(panel: Panel) -> list[Json]:
    """A colour for what has a meaning; limits are lines, apart from what is stacked."""
    if panel.kind != "timeseries":
        return []
    legends = {query.legend for query in panel.queries}
    colours = [_colour(colour, names) for colour, names in COLOURS.items()] if legends & (COLOURED | LIMITS) else []
    return [*colours, *([_limit_line()] if legends & LIMITS else [])]


def _colour(colour: str, names: Iterable[str]) -> Json:
    return _override(names, {"color": {"mode": "fixed", "fixedColor": colour}})


def _limit_line() -> Json:
    look = {
        "custom.fillOpacity": 0,
        "custom.lineStyle": {"fill": "dash", "dash": [6, 6]},
        "custom.stacking": {"mode": "none", "group": "limit"},
    }
    return _override(sorted(LIMITS), look)


def _override(names: Iterable[str], look: Mapping[str, Any]) -> Json:
    properties = [{"id": name, "value": value} for name, value in look.items()]
    return {"matcher": {"id": "byRegexp", "options": f"^({'|'.join(names)})$"}, "properties": properties}


_REDUCED = {"calcs": ["lastNotNull"], "fields": "", "values": False}
OPTIONS: dict[str, Json] = {
    "timeseries": {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
        "reduceOptions": _REDUCED,
    },
    "gauge": {"reduceOptions": _REDUCED, "showThresholdLabels": False, "showThresholdMarkers": True},
    "heatmap": {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "mode": "scheme",
            "scheme": "Spectral",
            "steps": 64,
            "exponent": 0.5,
            "fill": "dark-orange",
            "reverse": True,
        },
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "unit": "s"},
    },
    "state-timeline": {
        "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
        "mergeValues": True,
        "rowHeight": 0.8,
        "showValue": "never",
        "tooltip": {"mode": "single", "sort": "none"},
    },
}

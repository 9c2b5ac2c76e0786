"""PromQL that several panels are made of. Every expression is held to what the variables of its dashboard choose."""

from __future__ import annotations

from panels import INFO, Panel, Query, Threshold, Variable

ALL = 'namespace=~"$namespace"'
HERE = ALL + ',job=~"$job",instance=~"$instance"'
WORK = HERE + ',agent=~"$agent"'
NODE = ALL + ',node=~"$node"'
RATE = "[$__rate_interval]"
LATENCY = "runcast_delivery_latency_seconds"
BUDGET = 0.001
"""What may go wrong of a service level: 0.1 %."""

NAMESPACE = Variable("namespace", "Installation", "runcast_build_info")


def chosen(metric: str) -> tuple[Variable, ...]:
    """Job and instance, of those that have a metric."""
    job = Variable("job", "Job", f"{metric}{{{ALL}}}")
    return NAMESPACE, job, Variable("instance", "Instance", f'{metric}{{{ALL},job=~"$job"}}')


def rate(metric: str, by: str, where: str = HERE) -> str:
    return f"sum by ({by}) (rate({metric}{{{where}}}{RATE}))"


def total(metric: str, where: str = ALL) -> str:
    return f"sum(rate({metric}{{{where}}}{RATE}))"


def ratio(part: str, whole: str) -> str:
    return f"{part} / {whole}"


def quantile(q: float, histogram: str, where: str = HERE, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q:g}, sum by ({labels}) (rate({histogram}_bucket{{{where}}}{RATE})))"


def quantiles(histogram: str, where: str = HERE, qs: tuple[float, ...] = (0.5, 0.9, 0.99)) -> list[Query]:
    return [Query(quantile(q, histogram, where), f"p{q * 100:g}") for q in qs]


def stat(title: str, description: str, unit: str, expr: str, *thresholds: Threshold, **more: object) -> Panel:
    given: dict[str, object] = {"kind": "stat", "width": 4, "height": 4, "thresholds": thresholds, "base": INFO, **more}
    return Panel(title, description, unit, [Query(expr)], **given)  # type: ignore[arg-type]

"""How the Python modules of a directory hang together: rings of imports, modules in the middle. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emitter.demo.findings import MAX_PLACES, Finding
from emitter.demo.python_code import ImportGraph, Module

MIDDLE = 5
"""A module that so many import and that imports so many."""


def rings(modules: Sequence[Module], graph: ImportGraph) -> list[Finding]:
    """Import cycles, each shown as one way round: the line of every import on it."""
    paths = {module.name: module.path for module in modules}
    groups = graph.cycles()
    if not groups:
        return []
    why = "Modules that import each other can only be understood, tested and moved together."
    places = []
    for group in groups[:MAX_PLACES]:
        ring = _way_round(group[0], graph.edges)
        steps = zip(ring, [*ring[1:], ring[0]], strict=True)
        places.append(" → ".join(f"{paths[source]}:{graph.lines[source, target]}" for source, target in steps))
    inside = frozenset(paths[name] for group in groups for name in group)
    return [Finding(2, "import cycles", why, places, len(groups), inside)]


def _way_round(start: str, edges: Mapping[str, set[str]]) -> list[str]:
    """The shortest way from a module of a cycle back to itself."""
    came_from: dict[str, str] = {}
    waiting = [start]
    for name in waiting:
        for target in sorted(edges[name]):
            if target == start:
                ring = [name]
                while ring[-1] != start:
                    ring.append(came_from[ring[-1]])
                return ring[::-1]
            if target not in came_from:
                came_from[target] = name
                waiting.append(target)
    return [start]


def middle(modules: Sequence[Module], graph: ImportGraph) -> list[Finding]:
    """Modules that many lean on and that lean on many themselves."""
    importers = dict(graph.most_imported)
    found = [
        (module, importers.get(module.name, 0), len(graph.edges[module.name]))
        for module in modules
        if not module.is_test and min(importers.get(module.name, 0), len(graph.edges[module.name])) >= MIDDLE
    ]
    if not found:
        return []
    found.sort(key=lambda item: -item[1] * item[2])
    why = "Changes reach them from below and leave them upwards: the first to look at when a change is large."
    places = [f"{m.path} (imported by {leaning}, imports {leant})" for m, leaning, leant in found[:MAX_PLACES]]
    return [Finding(1, "modules in the middle", why, places, len(found), frozenset(m.path for m, _, _ in found))]

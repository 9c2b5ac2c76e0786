"""Hooks: functions that are applied to every event before it is stored, to redact, enrich or drop it.

A hook gets the typed event and its origin. It returns the event, another one (events are frozen: make a copy with
`msgspec.structs.replace`), or None to drop it. Hooks run before the built-in redaction and before chunks of text are
merged. They run on event loops, perhaps on several threads at once: they must take microseconds and do no I/O.

They fail closed: an event on which a hook fails is not stored. People and the log's state depend on `execution:*`,
`input:required` and `input:received`; a hook may change these, but neither drop them nor change their type.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import structlog

from emitter.errors import HookFailed, InvalidEvent, InvalidSetting, PayloadTooLarge, describe
from emitter.events import BY_TYPE, Event, ExecutionCancelled, ExecutionError, InputReceived, InputRequired
from emitter.settings import SharedSettings, read
from emitter.wire.envelope import encode_data
from emitter.wire.prepared import Prepared

log = structlog.get_logger("emitter")

GROUP = "runcast.hooks"
VARIABLE = "RUNCAST_HOOKS"
KEPT = frozenset(name for name in BY_TYPE if name.startswith("execution:")) | {InputRequired.type, InputReceived.type}
"""Types that must not be dropped: an input would never be requested, an execution would never end."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where an event comes from. `attempt` is 0 if it is not known; `source`: an emitter, or an edge that received the
    event over HTTP."""

    user: str
    org: str
    execution_id: str
    agent: str | None = None
    request_id: str | None = None
    attempt: int = 0
    source: Literal["emitter", "http"] = "emitter"


Hook = Callable[[Event, Origin], Event | None]


class Named(NamedTuple):
    """A hook, and its name in errors and logs."""

    name: str
    hook: Hook


def may_drop(event: Event) -> bool:
    """Whether a hook may return None for this event, or another type."""
    return event.type not in KEPT


# --- loading ---------------------------------------------------------------------------------------------------------


def name_hooks(hooks: Iterable[Hook]) -> tuple[Named, ...]:
    """Hooks under their own names. Raises `TypeError` for a value that cannot be a hook."""
    return tuple(Named(getattr(hook, "__name__", type(hook).__name__), _checked(hook)) for hook in hooks)


def hooks_from(environ: Mapping[str, str]) -> tuple[Named, ...]:
    """The hooks that `RUNCAST_HOOKS` names. Raises `InvalidSetting`."""
    return load_hooks(read(SharedSettings, environ, only={"hooks"}).hooks)


def load_hooks(names: Sequence[str]) -> tuple[Named, ...]:
    """Installed hooks, in this order; others are not imported. Raises `InvalidSetting`, which lists the installed
    names."""
    if not names:
        return ()
    installed = entry_points(group=GROUP)
    return tuple(Named(name, _load(name, names, installed)) for name in names)


def _load(name: str, names: Sequence[str], installed: EntryPoints) -> Hook:
    found = installed.select(name=name)
    if len(found) != 1:
        raise _bad(names, installed, f"there is no {name!r}" if not found else f"several packages have a {name!r}")
    if names.count(name) > 1:
        raise _bad(names, installed, f"{name!r} stands there twice")
    try:
        return _checked(found[name].load())
    except Exception as error:  # a plug-in's import may raise anything
        raise _bad(names, installed, f"{name!r} cannot be loaded: {' '.join(describe(error, 200).split())}") from error


def _bad(names: Sequence[str], installed: EntryPoints, reason: str) -> InvalidSetting:
    known = ", ".join(sorted(installed.names)) or "none is"
    return InvalidSetting(VARIABLE, ",".join(names)[:200], f"names of installed hooks ({known}), each once; {reason}")


def _checked(hook: Hook) -> Hook:
    if isinstance(hook, type) or not callable(hook):
        raise TypeError(f"a hook is a function of event and origin, not {str(hook)[:80]}")
    if inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(type(hook).__call__):
        raise TypeError("a hook is no coroutine function: it must not wait")
    return hook


# --- applying -------------------------------------------------------------------------------------------------------


def apply_hooks(hooks: Sequence[Named], event: Event, origin: Origin) -> Event | None:
    """The event after the hooks; None if one drops it. Raises `HookFailed`, and `InvalidEvent` for an event that cannot
    be stored anyway."""
    for named in hooks:
        passed, trouble = _call(named, event, origin)
        if trouble is not None:
            encode_data(event)  # raises `InvalidEvent` if the event itself is at fault
            log.warning("hook_failed", hook=named.name, execution=origin.execution_id, type=event.type, **trouble)
            raise HookFailed(named.name, event.type, trouble["reason"])
        if passed is None:
            return None
        event = passed
    return event


def prepare_end(
    hooks: Sequence[Named], event: Event, origin: Origin, prepare: Callable[[Event], Prepared]
) -> tuple[Prepared, HookFailed | None]:
    """A terminal event after the hooks, as it is stored. If a hook fails, the execution still ends: then this is a
    substitute for the event, and the failure. Raises what `prepare` raises for the event itself."""
    try:
        return _prepare_passed(hooks, event, origin, prepare), None
    except HookFailed as failure:
        return prepare(_substitute(event, failure)), failure


def _prepare_passed(
    hooks: Sequence[Named], event: Event, origin: Origin, prepare: Callable[[Event], Prepared]
) -> Prepared:
    passed = apply_hooks(hooks, event, origin)
    assert passed is not None, "a hook that drops an end fails"
    try:
        return prepare(passed)
    except (InvalidEvent, PayloadTooLarge) as error:
        prepare(event)  # raises if the event itself is at fault
        reason = f"what it became cannot be stored: {type(error).__name__}"
        raise HookFailed(", ".join(named.name for named in hooks), event.type, reason) from None


def _substitute(event: Event, failure: HookFailed) -> Event:
    """A terminal event without any content of the original, so that no hook is needed."""
    if isinstance(event, ExecutionCancelled):
        return ExecutionCancelled()
    return ExecutionError(error=f"hook {failure.hook!r} failed", code="hook_failed")


def _call(named: Named, event: Event, origin: Origin) -> tuple[Event | None, dict[str, str] | None]:
    """What a hook returned, or the log fields of its failure: only the type and place of an exception, because its text
    may contain what the hook should hide."""
    try:
        passed = named.hook(event, origin)
    except Exception as error:  # a plug-in may raise anything
        return None, {"reason": type(error).__name__, "at": _place(error)}
    fault = None if passed is event else _fault(event, passed)
    return passed, None if fault is None else {"reason": fault}


def _fault(event: Event, passed: Event | None) -> str | None:
    """The fault of what a hook returned, if any."""
    if passed is None:
        return None if may_drop(event) else "it may not be dropped"
    if not isinstance(passed, Event):
        return f"a {type(passed).__name__} came back, not an event"
    if passed.type != event.type and not (may_drop(event) and may_drop(passed)):
        return f"it may not become {passed.type}"
    if isinstance(event, InputRequired | InputReceived) and getattr(passed, "input_id", None) != event.input_id:
        return "its inputId may not change"
    try:
        encode_data(passed)
    except InvalidEvent as error:  # its text may quote the value
        path = str(error).partition("at `")[2].partition("`")[0]
        return f"what came back is not valid at {path or '$'}"
    return None


def _place(error: Exception) -> str:
    """File and line where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"

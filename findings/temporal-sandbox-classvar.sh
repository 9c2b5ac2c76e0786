#!/usr/bin/env bash
# In the sandbox of a Temporal workflow, msgspec takes a class variable of a Struct for a field.
#
# Seen with temporalio 1.35.0 and msgspec 0.22.0 on Python 3.11, in modules with `from __future__ import annotations`. The
# sandbox runs a workflow's file again, and what that imports, with a `sys.modules` of its own. An annotation that is a
# text says `ClassVar` only in its module's namespace, which msgspec, in C and passed through, looks up in the
# interpreter's modules, where the module of the sandbox is not. So `kind: ClassVar[str] = "a"` becomes a field with a
# default: encoded objects have a member more, a decoder for the struct is refused ("Type 'typing.ClassVar[str]' is not
# supported"), and such a base beside another one with fields is a "multiple bases have instance lay-out conflict".
# Nothing names the sandbox. Without the future import all is well; and class variables that are annotated under
# TYPE_CHECKING stay what they are, as does a module that is imported under `workflow.unsafe.imports_passed_through()`.
# A good guess would have been that an annotation means the same wherever its file is run.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check temporalio==1.35.0 msgspec==0.22.0
cat > "$folder/shapes.py" <<'PY'
from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec


class Annotated(msgspec.Struct):
    kind: ClassVar[str] = "a"
    text: str = ""


class Guarded(msgspec.Struct):
    if TYPE_CHECKING:
        kind: ClassVar[str]
    kind = "a"
    text: str = ""


def fields() -> tuple[tuple[str, ...], tuple[str, ...], bytes]:
    return Annotated.__struct_fields__, Guarded.__struct_fields__, msgspec.json.encode(Annotated(text="x"))
PY
cat > "$folder/flow.py" <<'PY'
import os

import shapes
from temporalio import workflow


@workflow.defn
class Flow:
    @workflow.run
    async def run(self) -> None: ...


if workflow.unsafe.in_sandbox():
    with workflow.unsafe.sandbox_unrestricted():
        print("in the sandbox:", *shapes.fields())
PY
cat > "$folder/main.py" <<'PY'
import asyncio

import flow
import shapes
from temporalio import workflow
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

print("outside:", *shapes.fields())


async def main() -> None:  # as a worker does when it is made
    SandboxedWorkflowRunner().prepare_workflow(workflow._Definition.must_from_class(flow.Flow))


asyncio.run(main())
PY
cd "$folder"
venv/bin/python main.py | tee seen
grep -qF "outside: ('text',) ('text',) b'{\"text\":\"x\"}'" seen
grep -qF "in the sandbox: ('kind', 'text') ('text',) b'{\"kind\":\"a\",\"text\":\"x\"}'" seen

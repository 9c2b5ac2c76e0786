"""Which trace an execution belongs to (W3C Trace Context), and whether this process makes spans.

`trace.py` has the values and a tracer that makes no spans; `setup.py` reads the `OTEL_*` variables; `otel.py` needs
OpenTelemetry and is imported only if the environment asks for spans.
Does not belong here: names of spans and what they measure; those are where the work is done.
May import: leaves.
"""

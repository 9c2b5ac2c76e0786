"""AG-UI 1.0 (https://ag-ui.com/spec/1.0): a run is an execution, an input is an interrupt.

`routes.py` and `requests.py` have the endpoints and bodies, `renderer.py` events as AG-UI events, `messages.py` what an
agent says and does, `state.py` and `lists.py` the state and its patches, `interrupts.py` inputs, `frames.py` the bytes.
An event without a form of its own is a `CUSTOM` event.
May import: `protocols` beside this folder, and what that may.
"""

"""AG-UI 1.0 (https://ag-ui.com/spec/1.0): runs, as its clients see executions."""

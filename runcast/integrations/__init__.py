"""Agents of other libraries, and the streams of models; see `emitter.integrations`."""

"""Renderings of the one log in the protocols of other clients."""

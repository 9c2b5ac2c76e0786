"""The edge: authorises viewers, reads logs, and streams them."""

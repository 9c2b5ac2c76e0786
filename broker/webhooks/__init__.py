"""Webhooks: what is asked for of a log is posted to its receivers.

`delivery` takes webhooks that may have something to deliver, reads their logs, and notes how far each has come; `lanes`
keeps one receiver or user from slowing the others; `sender` signs and posts; `policy` says which webhooks users may ask
for.
"""

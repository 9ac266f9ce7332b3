"""Who may use the gateway, and when: API keys and the queue of waiting requests.

`identity` mints, parses and checks API keys; `key_table` keeps their digests in a file; `queue`
orders sealed requests until a worker that can open them has room. Fair queueing by real token cost
replaces the plain order behind the same `put`/`pop_for`/`remove` surface.

This package never sees content, never trusts a label a client sends about itself, and never reads
the clock in its core: callers pass `now`. Source: `docs/operate/gateway.md`.
"""

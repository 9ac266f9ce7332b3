"""Provable answers: signed receipts, the append-only log that holds them, the key directory.

A worker signs what it did (`receipt`), commits to what was said without saying it (`commit`), and
the deployment writes one leaf per event into a Merkle tree (`leaf`, `merkle`, `sequencer`) whose
head is a signed note (`note`, `checkpoint`). A reader checks all of it offline (`bundle`,
`directory`).

This package must never hold a prompt or an answer in clear, never acknowledge an entry that is not
durable, and never turn a check it did not make into a pass. Everything but `sequencer`,
`store_sqlite` and `anchor` is pure: no I/O, no clock, no randomness of its own.

Specification: docs/spec/receipts.md.
"""

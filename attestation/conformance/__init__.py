"""Runs published evidence samples through this implementation. Pure; files are read by the caller.

An index of schema `attestation-vectors/1` names samples of evidence, what the relying party brings,
and the verdict expected: authentic or not, accepted under the index's strict policy or not, for one
of which reasons, and with which claims. Anybody can write one: docs/spec/evidence.md §9.
"""

"""Verification: is this value signed by whom it claims? No policy on state is decided here.

Failures are `wire.errors.AttestationError` with exactly one machine code in `.reasons`.
"""

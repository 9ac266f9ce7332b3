"""Operating-system confinement of the worker: namespaces, Landlock, seccomp, limits, key memory.

Every step returns data (:class:`attestation.posture.Control`: applied, unavailable or refused, with
the errno) that ends in the signed posture record; a control that could not be set is a fact in the
evidence, never a log line and never an exception that someone may swallow. The package must
never claim a control it did not set, and never touch keys beyond the page that stores a seed.

Order, and why it is this one: ``docs/adr/0004-sandbox-order.md``. Entry points: ``confine.py``.
"""

__all__: tuple[str, ...] = ()

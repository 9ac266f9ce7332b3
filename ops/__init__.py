"""Composition for humans: the whole command line, the demo, model import, one-machine deployments.

`ops` may import everything and is never imported. It holds no rule of its own: what is accepted,
sealed or released is decided in the packages it starts. Design: docs/architecture.md.
"""

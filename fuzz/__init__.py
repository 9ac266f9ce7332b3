"""Hostile bytes for everything that reads evidence, collateral and policies.

One target per parser, one per kind of evidence for the whole examination, and one per bound that
a parser has. A target may raise our own errors and nothing else, within its time and memory. It
never reads the network, never writes outside `fuzz/corpus`, and holds no vendor's bytes: seeds come
from the samples in $ANCHORHOLD_VECTORS, where there are any, and from the simulated vendors of the
tests.
"""

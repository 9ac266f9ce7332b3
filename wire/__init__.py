"""The sealed request protocol `anchorhold/1`: every byte between client, gateway and worker.

What: error tree, canonical JSON, identifiers, limits, HPKE suites, key schedule, frames, records,
padding, envelopes, responses, traffic shaping, signed notices, problem documents and the
gateway⇄worker link. Bytes become typed values here, and only here.

Must never: do I/O, read a clock or the environment, draw randomness of its own outside HPKE's
ephemeral key (pass `rng` in), know what a TEE is, or put content into an exception.

Spec: docs/spec/sealed-protocol.md. Nothing is exported from the package itself: write
`from wire.framing import FrameOpener`.
"""

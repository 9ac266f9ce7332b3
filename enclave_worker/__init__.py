"""The worker: the only place where a prompt exists in plaintext, and only in its memory.

`launch` runs outside: it stages, measures and starts the worker and keeps the attester. `main` is
the sandboxed child: it loads the model, makes its keys, gets them attested and serves sealed
requests over the one socket it was handed. The worker never opens a file or a socket after warm-up,
never writes a key anywhere, and never logs a string that came from a request: what it says on
stderr is made of numbers and of names known beforehand. See docs/spec/sealed-protocol.md.
"""

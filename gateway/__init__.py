"""HTTP in, ciphertext out: the gateway admits workers, queues sealed requests and streams answers.

It checks credentials, sizes and evidence, releases an envelope only to an admitted worker that
holds one of its keys, retries before the first byte, and writes what happened into the evidence
log. It must never see plaintext: it cannot import the code that opens an envelope's content, never
parses a response, and its telemetry and logs can carry numbers and words from closed lists only.

Routes, settings, errors and metrics: `docs/operate/gateway.md`.
"""

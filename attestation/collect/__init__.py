"""The worker's side: make measurements and evidence. The only part of `attestation` with I/O.

Must never be imported by a verifier. The software attester and the simulated TPM prove nothing
about the machine; what they make is named `software` or `simulated` wherever it shows.
"""

"""Is this peer what a policy demands? Evidence bytes in, a typed verdict out.

What: worker bindings, evidence kinds (`software`, `tpm2`), measurements, posture records, the
tenant's policy, and `appraise`, whose numbered steps turn unverified `Evidence` into
`AppraisedEvidence`, a type nothing else can construct. `collect` is the worker's side and the only
part that does I/O.

Must never (outside `collect`): fetch, read a clock, draw randomness, take a trust anchor from the
evidence it judges, or report a check it did not run as passed.

Spec: docs/spec/evidence.md. Import from the modules: `from attestation.appraise import appraise`.
"""

"""Is this peer what a policy demands? Evidence bytes in, a typed verdict out.

What: worker bindings, kinds of evidence (`schemes`), measurements, posture records, the tenant's
policy, and `appraise`, whose numbered steps turn unverified `Evidence` into `AppraisedEvidence`, a
type nothing else can construct. `collect` is the worker's side, `collateral` asks vendors for what
they state and keeps it on disk: only these two do I/O.

Must never: take a trust anchor from the evidence it judges, or report a check it did not run as
passed; outside `collect` and `collateral`, fetch, touch the disk, read a clock or draw randomness.

Spec: docs/spec/evidence.md. Import from the modules: `from attestation.appraise import appraise`.
"""

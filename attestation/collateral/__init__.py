"""Collateral: what vendors sign about their hardware, fetched, kept, and handed to the verifiers.

What: closed keys (`key`), entries checked when they arrive (`entry`, `intel`, `amd`, `nvidia`,
`jwks`), one fetching interface (`fetcher`, `http_fetcher`), a disk cache (`store`), offline
bundles (`bundle`) and the step from a scheme's needs to bytes (`resolve`).

Must never: take a URL, a host or a path from a client or from evidence (addresses come from the
operator's `services` alone), use an entry after its end, accept an answer for another key, or
connect without verifying TLS. Only `http_fetcher`, `store`, `bundle` and `whole_file`
touch the world.
"""

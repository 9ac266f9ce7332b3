"""What verification of evidence costs: each kind against a limit.

    ANCHORHOLD_VECTORS=DIR .venv/bin/python bench/appraisal.py [--rounds 200] [--json]

Each kind is one genuine sample, examined and judged under the strict policy of the samples' index.
Its limit, in the same run, is the bare public-key work no verifier can do without: that many
verifications of that algorithm by OpenSSL, with keys already parsed; for TDX it is one bare call
of `dcap_qvl.verify`. Reported are medians on one core, and the ratio to the limit.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dcap_qvl
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from median import median_ms

from attestation.conformance.index import Index, Sample, parse_index
from attestation.conformance.run import run_sample

if TYPE_CHECKING:
    from collections.abc import Callable

#: Sample, target in ms, and the public-key work it cannot do without.
KINDS: dict[str, tuple[str, float, dict[str, int]]] = {
    "intel-tdx-quote": ("tdx-v4-uptodate-b0c06f", 2.0, {}),
    "amd-sev-snp-report": ("snp-genoa-v3", 2.0, {"p384": 1, "rsa4096-pss": 2}),
    "nvidia-gpu-spdm": ("nvidia-hopper-550", 6.0, {"p384": 5}),
    "aws-nitro-document": ("nitro-production", 6.0, {"p384": 5}),
    "tpm2-quote": ("tpm2-coco-rsa", 0.3, {"rsa2048": 1}),
}


def primitives(rounds: int) -> dict[str, float]:
    """Median ms of one verification by each algorithm, key parsed."""
    message = bytes(1184)
    p384 = ec.generate_private_key(ec.SECP384R1())
    ecdsa = p384.sign(message, ec.ECDSA(hashes.SHA384()))
    big, small = (rsa.generate_private_key(65537, bits) for bits in (4096, 2048))
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
    signed = big.sign(message, pss, hashes.SHA384())
    plain = small.sign(message, padding.PKCS1v15(), hashes.SHA256())
    curve, wide, narrow = p384.public_key(), big.public_key(), small.public_key()
    return {
        "p384": median_ms(lambda: curve.verify(ecdsa, message, ec.ECDSA(hashes.SHA384())), rounds),
        "rsa4096-pss": median_ms(
            lambda: wide.verify(signed, message, pss, hashes.SHA384()), rounds
        ),
        "rsa2048": median_ms(
            lambda: narrow.verify(plain, message, padding.PKCS1v15(), hashes.SHA256()), rounds
        ),
    }


def bare_tdx(files: dict[str, bytes], now: int) -> Callable[[], object]:
    """One bare verification of a quote."""
    collateral = dcap_qvl.QuoteCollateralV3.from_json(files["collateral"].decode())
    return lambda: dcap_qvl.verify(files["quote"], collateral, now)


def kinds(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Every kind: ours, its limit, the ratio and the target."""
    index = parse_index((folder / "index.json").read_bytes())
    known = {sample.id: sample for sample in index.samples}
    bare = primitives(rounds)
    found = []
    for kind, (name, target, work) in KINDS.items():
        sample = known[name]
        by_path = {path: (folder / path).read_bytes() for path in sample.files.values()}
        ours = median_ms(_judged(sample, index, by_path), rounds)
        if work:
            limit = sum(bare[algorithm] * count for algorithm, count in work.items())
        else:
            files = {role: by_path[path] for role, path in sample.files.items()}
            limit = median_ms(bare_tdx(files, sample.at or 0), rounds)
        found.append(
            {"kind": kind, "ms": ours, "limit_ms": limit, "ratio": ours / limit, "target": target}
        )
    return found


def _judged(sample: Sample, index: Index, by_path: dict[str, bytes]) -> Callable[[], object]:
    def once() -> None:
        outcome = run_sample(sample, index, by_path.__getitem__)
        if not outcome.ok:
            raise SystemExit(f"{sample.id}: {outcome.faults}")

    return once


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200, help="calls a kind")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    folder = os.environ.get("ANCHORHOLD_VECTORS")
    if folder is None:
        raise SystemExit("set ANCHORHOLD_VECTORS to the folder with index.json")
    found = kinds(Path(folder), options.rounds)
    if options.json:
        print(json.dumps({"kinds": found}, indent=2))
        return
    for row in found:
        print(
            f"{row['kind']:<20} {row['ms']:6.2f} ms  limit {row['limit_ms']:5.2f} ms  "
            f"ratio {row['ratio']:4.2f}  target {row['target']} ms"
        )


if __name__ == "__main__":
    main()

"""What verification of evidence costs: each kind against a limit, and cached appraisals.

    ANCHORHOLD_VECTORS=DIR .venv/bin/python bench/appraisal.py [--rounds 200] [--json]
    .venv/bin/python bench/appraisal.py --only cached [--seconds 3]

Each kind is one genuine sample, examined and judged under the strict policy of the samples' index.
Its limit, in the same run, is the bare public-key work no verifier can do without: that many
verifications of that algorithm by OpenSSL, with keys already parsed; for TDX it is one bare call
of `dcap_qvl.verify`. Reported are medians on one core, and the ratio to the limit.

Cached appraisals are what a gateway does for workers it has judged before: how many a second one
core does, and what 1,000 a second in the gateway's own event loop do to the latency of sealed
requests through it, measured in turns with and without.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dcap_qvl
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from simulators.deployment import Deployment, Fleet, seal

from attestation.conformance.index import Index, Sample, parse_index
from attestation.conformance.run import run_sample
from gateway.appraiser import Appraiser, Presented

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
RATE = 1000


def median_ms(work: Callable[[], object], rounds: int) -> float:
    """Median time of one call, in ms."""
    work()
    spent = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begin)
    return statistics.median(spent) * 1000


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


def cached_per_second(seconds: float) -> float:
    """Cached appraisals one core does in a second."""
    deployment = Deployment()
    try:
        tee = deployment.tee
        binding = tee.binding()
        shown = Presented(binding, (tee.evidence(binding),), tee.posture())
        appraiser = Appraiser(tee.policy())

        async def run() -> float:
            await appraiser.judge(shown, tee.now)
            count, begin = 0, time.perf_counter()
            while time.perf_counter() < begin + seconds:
                for _ in range(100):
                    await appraiser.judge(shown, tee.now)
                count += 100
            return count / (time.perf_counter() - begin)

        return asyncio.run(run())
    finally:
        deployment.remove()


async def latency(rounds: int, requests: int) -> dict[str, float]:
    """p50 ms of sealed requests through a gateway, without and with RATE appraisals a second."""
    deployment = Deployment()
    spent: dict[bool, list[float]] = {False: [], True: []}
    done = 0
    try:
        async with deployment.up() as up:
            fleet = Fleet(deployment)
            (worker,) = await fleet.admit("a", pull=1000)
            epoch = next(iter(up.gateway.registry.offered(up.gateway.clock.wall())))
            appraiser, clock = up.gateway.reappraisal.appraiser, up.gateway.clock
            busy = asyncio.Event()

            async def appraise() -> None:
                nonlocal done
                while True:
                    await busy.wait()
                    begin = time.perf_counter()
                    for _ in range(RATE // 100):
                        await appraiser.judge(epoch.presented, clock.wall(), epoch.collateral)
                        done += 1
                    await asyncio.sleep(max(0, 0.01 - (time.perf_counter() - begin)))

            async def answer() -> None:
                while True:
                    await worker.answer(await worker.job(within_s=60))

            tasks = [asyncio.create_task(appraise()), asyncio.create_task(answer())]
            for turn in range(2 * rounds):
                loaded = bool(turn % 2)
                (busy.set if loaded else busy.clear)()
                for _ in range(requests):
                    sealed = seal([worker])
                    begin = time.perf_counter()
                    (await up.post(sealed)).raise_for_status()
                    spent[loaded].append(time.perf_counter() - begin)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await worker.drop()
    finally:
        deployment.remove()
    alone, loaded_ms = (statistics.median(spent[key]) * 1000 for key in (False, True))
    spread = statistics.stdev(spent[False]) * 1000 / len(spent[False]) ** 0.5
    rate = done / sum(spent[True])
    return {"alone_ms": alone, "loaded_ms": loaded_ms, "noise_ms": spread, "rate": rate}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200, help="calls a kind; turns are a tenth")
    parser.add_argument("--requests", type=int, default=20, help="sealed requests a turn")
    parser.add_argument("--seconds", type=float, default=2.0, help="of cached appraisals")
    parser.add_argument("--only", choices=("kinds", "cached"), help="one part")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    if options.only != "cached":
        folder = os.environ.get("ANCHORHOLD_VECTORS")
        if folder is None:
            raise SystemExit("set ANCHORHOLD_VECTORS to the folder with index.json")
        result["kinds"] = kinds(Path(folder), options.rounds)
    if options.only != "kinds":
        result["cached_per_second"] = cached_per_second(options.seconds)
        result["latency"] = asyncio.run(latency(max(1, options.rounds // 20), options.requests))
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for row in result.get("kinds", []):
        print(
            f"{row['kind']:<20} {row['ms']:6.2f} ms  limit {row['limit_ms']:5.2f} ms  "
            f"ratio {row['ratio']:4.2f}  target {row['target']} ms"
        )
    if "latency" in result:
        found = result["latency"]
        print(f"cached appraisals    {result['cached_per_second']:,.0f} a second on one core")
        print(
            f"sealed request p50   {found['alone_ms']:.2f} ms alone, {found['loaded_ms']:.2f} ms "
            f"with {found['rate']:,.0f} appraisals/s (standard error {found['noise_ms']:.2f} ms)"
        )


if __name__ == "__main__":
    main()

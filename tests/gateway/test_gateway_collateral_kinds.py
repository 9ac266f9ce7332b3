"""Vendors are asked about what the policy in force judges, and about nothing else."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from simulators.deployment import AUD, Deployment, Up, now
from simulators.gpu_tee import GPUS, SnpGpuTee, TdxGpuTee
from simulators.hardware_tee import (
    AzureSnpTee,
    AzureTdxTee,
    HardwareTee,
    SnpTee,
    TdxTee,
)
from simulators.nvidia import Nvidia
from simulators.nvidia_device import listing
from simulators.tee import SoftwareTee, Tee
from simulators.vendor_services import OCSP, Answer, VendorServices
from simulators.worker_peer import WorkerPeer

from attestation.binding import report32
from attestation.collateral.http_fetcher import HttpFetcher
from attestation.collateral.store import Store
from attestation.collateral.vendors import Vendors
from attestation.evidence import Evidence
from attestation.evidence_collateral import collateral_anchors, judged_kinds
from attestation.formats.container import encode_container
from attestation.policy import parse_policy
from gateway.asker import Asker
from gateway.clock import Clock
from gateway.collateral import CollateralSource
from gateway.found import NONE_COLLECTED
from gateway.questions import Questions
from wire.ids import sha256_tag

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from attestation.policy import Policy

SNP = "amd-sev-snp-report"
PARTS = {"first_party": sha256_tag(b"a part")}
SWITCH = "nvidia-nvswitch-spdm"
SINGLE = "nvidia-gpu-spdm"
ALL_TEES: list[type[HardwareTee]] = [
    SnpTee, TdxTee, AzureSnpTee, AzureTdxTee, SnpGpuTee, TdxGpuTee,
]  # fmt: skip


def policy_of(tee: Tee, *others: Tee, **changes: Any) -> Policy:
    """A policy that accepts these."""
    rules = [rule for one in (tee, *others) for rule in one.demands["accept"]]
    return parse_policy(json.dumps({**tee.demands, **changes, "accept": rules}).encode())


class Source:
    """A gateway's source of collateral, the policy it is under, and the vendors on loopback."""

    def __init__(self, folder: Path, served: VendorServices, policy: Policy, at: int) -> None:
        self.folder = folder / "cache"
        self.served = served
        self.policy = policy
        self.now = at

    @contextmanager
    def open(self) -> Iterator[CollateralSource]:
        services = self.served.services()
        found = CollateralSource(
            Store(self.folder),
            lambda: Vendors(services, secrets.token_bytes, collateral_anchors(self.policy)),
            HttpFetcher(services, pause=lambda _: None),
            Clock(wall=lambda: self.now),
            lambda: self.policy.collateral_max_age_s,
            lambda kinds: judged_kinds(self.policy, kinds),
            lambda _code: None,
            Questions(lambda: float(self.now), 15, 600),
        )
        try:
            yield found
        finally:
            found.close()

    def kept(self) -> int:
        """Entries in the cache."""
        folder = self.folder / "entries"
        return len(list(folder.iterdir())) if folder.is_dir() else 0


def made_up(vendor: Nvidia, raw: bytes, count: int = 2) -> Evidence:
    """GPUs under a root of a stranger's own, for a binding."""
    shown = listing([vendor.gpu() for _ in range(count)], report32(raw))
    return Evidence(GPUS, encode_container({"evidence_list": shown}, PARTS))


def not_known(at: int) -> Answer:
    """What a responder answers about any certificate that is not its vendor's."""
    responder = Nvidia(at).root

    def answer(request: bytes) -> bytes:
        asked = ocsp.load_der_ocsp_request(request)
        nonce = asked.extensions.get_extension_for_class(x509.OCSPNonce).value
        builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
            asked.issuer_name_hash, asked.issuer_key_hash, asked.serial_number,
            asked.hash_algorithm, ocsp.OCSPCertStatus.UNKNOWN, datetime.fromtimestamp(at, UTC),
            datetime.fromtimestamp(at + 86_400, UTC), None, None,
        )  # fmt: skip
        builder = builder.responder_id(
            ocsp.OCSPResponderEncoding.HASH, responder.certificate
        ).add_extension(nonce, critical=False)
        return builder.sign(responder.key, hashes.SHA384()).public_bytes(Encoding.DER)

    return Answer(answer)


# ---------------------------------------------------------------- which kinds


@pytest.mark.parametrize("make", ALL_TEES)
def test_all_that_a_worker_shows_and_its_rule_judges_is_looked_for(
    make: type[HardwareTee],
) -> None:
    tee = make()
    shown = [item.kind for item in tee.presented(tee.binding())]
    assert judged_kinds(policy_of(tee), shown) == set(shown)


@pytest.mark.parametrize(
    ("tees", "shown", "expected"),
    [
        ([SoftwareTee], ["software", SNP, GPUS, SINGLE], {"software"}),
        ([SnpTee], [SNP, GPUS, SWITCH, SINGLE], {SNP}),
        ([SnpGpuTee], [SNP, GPUS, SWITCH, SINGLE], {SNP, GPUS}),
        # GPUs count behind the CPU whose rule demands them.
        ([SnpGpuTee], [GPUS], set()),
        ([SnpGpuTee], ["software", GPUS], set()),
        ([SnpGpuTee, TdxTee], ["intel-tdx-quote", GPUS], {"intel-tdx-quote"}),
        ([SoftwareTee, SnpGpuTee], ["software", SNP, GPUS], {"software", SNP, GPUS}),
        # An appraisal takes one item a kind, and at most four.
        ([SnpTee], [SNP, SNP], set()),
        ([SnpTee], [SNP, "a", "b", "c", "d"], set()),
        ([SnpTee], [], set()),
    ],
)
def test_what_no_rule_judges_is_not_looked_for(
    tees: Sequence[type[Tee]], shown: list[str], expected: set[str]
) -> None:
    changes = {"allow_software": True, "allow_simulated": True}
    policy = policy_of(*(make() for make in tees), **changes)
    assert judged_kinds(policy, shown) == expected


# ---------------------------------------------------------------- and what comes of it


async def test_a_stranger_cannot_have_a_vendor_asked_about_a_kind_that_nobody_accepts(
    tmp_path: Path, served: VendorServices
) -> None:
    tee = SoftwareTee()
    raw, world = tee.binding(), Source(tmp_path, served, policy_of(tee), tee.now)
    snp = SnpTee()
    snp.serve(served)
    served.answers[OCSP] = not_known(tee.now)
    shown = [tee.evidence(raw), snp.evidence(raw), made_up(Nvidia(tee.now), raw)]
    with world.open() as source:
        for link in range(3):
            found = await source.collect(shown, Asker(link))
            assert not any(found.roles.values())
        await source.refresh(shown, found)
        await source.refresh(shown, NONE_COLLECTED)
    assert served.asked == []
    assert world.kept() == 0


async def test_gpus_that_a_rule_demands_are_looked_up(
    tmp_path: Path, served: VendorServices
) -> None:
    tee = SnpGpuTee()
    tee.serve(served)
    world = Source(tmp_path, served, policy_of(tee), tee.now)
    with world.open() as source:
        found = await source.collect(tee.presented(tee.binding()), Asker(1))
    assert {"endorsement_cert", "crl"} <= set(found.roles[SNP])
    assert "ocsp" in found.roles[GPUS]


async def test_what_the_responder_does_not_know_is_told_and_not_kept(
    tmp_path: Path, served: VendorServices
) -> None:
    """Anybody makes up such certificates: each would be an entry, for good."""
    tee = SnpGpuTee()
    tee.serve(served)
    served.answers[OCSP] = not_known(tee.now)
    world = Source(tmp_path, served, policy_of(tee), tee.now)
    raw = tee.binding()
    with world.open() as source:
        await source.collect([tee.evidence(raw)], Asker(1))
        own = world.kept()
        found = await source.collect([tee.evidence(raw), made_up(Nvidia(tee.now), raw)], Asker(2))
    assert "ocsp" in found.roles[GPUS]
    assert [path for _, path, _ in served.asked].count(OCSP) > 1
    assert world.kept() == own
    assert not any("ocsp-" in path.name for path in (world.folder / "seen").iterdir())


async def test_a_policy_that_judges_one_more_kind_has_it_looked_for_at_the_next_sweep(
    tmp_path: Path, served: VendorServices
) -> None:
    """A worker that shows two kinds stays when the policy goes from one to the other."""
    software, snp = SoftwareTee(), SnpTee()
    snp.serve(served)
    raw = software.binding()
    shown = [software.evidence(raw), snp.evidence(raw)]
    world = Source(tmp_path, served, policy_of(software), software.now)
    with world.open() as source:
        held = await source.collect(shown, Asker(1))
        assert await source.stale([held]) == [False]
        assert await source.refresh(shown, held) is held
        world.policy = policy_of(software, snp, allow_simulated=True)
        assert await source.stale([held]) == [True]
        found = await source.refresh(shown, held)
        assert "endorsement_cert" in found.roles[SNP]
        assert await source.reread(shown, held) != held
        # Back again: what was found is not looked for, and not thrown away.
        world.policy = policy_of(software)
        asked = len(served.asked)
        world.now += 80_000
        assert await source.stale([found]) == [False]
        assert await source.refresh(shown, found) is found
        assert len(served.asked) == asked


# ---------------------------------------------------------------- a running gateway


@pytest.fixture
def make() -> type[Tee]:
    """The kind of worker; overridden by parametrising `make`."""
    return SoftwareTee


@pytest.fixture
def deployment(served: VendorServices, make: type[Tee], tmp_path: Path) -> Iterator[Deployment]:
    services = tmp_path / "services.toml"
    services.write_text(
        f'amd_kds = "{served.url}"\n'
        f'nvidia_ocsp = "{served.url}{OCSP}"\n'
        f'nvidia_rim = "{served.url}"\n'
    )
    found = Deployment(make, collateral_services_file=services, collateral_retry_s=0)
    yield found
    found.remove()


class Stranger(SoftwareTee):
    """One who shows made-up GPUs beside the rest."""

    def presented(self, binding_raw: bytes) -> list[Evidence]:
        return [self.evidence(binding_raw), made_up(Nvidia(self.now), binding_raw)]


async def test_a_gateway_for_software_alone_never_asks_about_a_strangers_gpus(
    up: Up, served: VendorServices
) -> None:
    served.answers[OCSP] = not_known(now())
    worker = WorkerPeer(Stranger("stranger", up.deployment.tee.now, AUD), up.deployment.socket)
    await worker.admitted()  # what the policy accepts it has shown, too
    await worker.drop()
    assert served.asked == []


@pytest.mark.parametrize("make", [SnpTee])
async def test_roots_of_a_new_policys_own_count_for_what_is_fetched_from_then_on(
    deployment: Deployment, served: VendorServices
) -> None:
    path, right = deployment.config.admission_policy_file, deployment.tee.demands
    wrong = json.loads(json.dumps(right))
    wrong["accept"][0]["roots"] = TdxTee().demands["accept"][0]["roots"]
    await asyncio.to_thread(path.write_text, json.dumps(wrong))
    async with deployment.up() as up:
        worker = deployment.worker("a")
        assert isinstance(worker.tee, SnpTee)
        worker.tee.serve(served)
        assert "collateral_missing" in await worker.refused()
        await worker.drop()
        await asyncio.to_thread(path.write_text, json.dumps({**right, "seq": 2}))
        await up.gateway.look()
        assert up.gateway.reappraisal.appraiser.policy.seq == 2
        again = deployment.worker("a")
        await again.admitted()
        await again.drop()

"""`amd-sev-snp-report`: the attestation report of an AMD SEV-SNP guest.

Examination, in numbered steps with their reason codes:

 1 format       the report parses, in a known version       evidence_malformed,
                                                            version_not_accepted
 2 root         one pinned ARK is at hand; it alone says    untrusted_root, chain_invalid,
                which product this is                       collateral_missing
 3 certificate  the endorsement key's certificate parses,   collateral_missing, chain_invalid,
                with AMD's extensions                       certificate_malformed
 4 chain        ARK, ASK or ASVK, VCEK or VLEK: names,      chain_invalid, collateral_missing,
                PSS parameters, constraints, validity       certificate_not_valid_at_time
 5 revocation   if a list is at hand, it is AMD's, of now,  crl_invalid, crl_expired,
                and names none of them                      crl_not_yet_valid, revoked
 6 signing key  the report is signed, by that kind of key   signing_key_none,
                                                            signing_key_mismatch
 7 product      CPU, certificate and chain agree            product_unknown, product_mismatch
 8 chip         hwID equals CHIP_ID (VCEK)                  chip_id_mismatch
 9 tcb          the certificate's TCB equals REPORTED_TCB   tcb_mismatch, evidence_malformed
10 signature    by the certified key                        signature_invalid
11 report data  what the relying party expects              report_data_mismatch, nonce_mismatch

Step 5 runs if a list is given, step 11 if something is expected: a nonce alone must stand first in
the report data, with zeros after it; with a whole report data it is a part of that already.

The judgement's steps 12 to 22 stand in `rules.snp_state`.

Certificates come as collateral, or with the evidence: as `endorsement_cert`, or in the table that
the host left beside the report (`auxblob`). Where they come from makes none of them trusted.
`root` counts only if pinned, and may as well stand in `ca` (AMD hands out both in one file).

Not checked: single VCEKs against a list, since AMD numbers none of them (a leaked one ends with its
TCB: raise the floor, or deny its chip); whether the chip was opened (see LIMITATIONS.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from attestation import anchors
from attestation.collateral_key import amd, named, vcek
from attestation.examined import FOREVER, Examined
from attestation.formats.amd_certificate import parse_endorsement
from attestation.formats.certificate_table import parse_table
from attestation.formats.pem import certificates
from attestation.formats.snp import (
    TURIN_HWID_LEN,
    VERSIONS,
    decode_tcb,
    parse_report,
    report_version,
)
from attestation.ledger import Ledger
from attestation.registers import host_data_value
from attestation.rules import snp as rules
from attestation.rules.snp_state import SnpFacts, judge
from attestation.scheme import Need, Scheme
from attestation.verify import snp as verify
from attestation.verify.x509 import load_certificate
from wire.errors import AttestationError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography import x509

    from attestation.examined import Expected, Question
    from attestation.formats.amd_certificate import EndorsementKey
    from attestation.formats.snp import Product, Report
    from attestation.verify.snp import AmdChain

KIND: Final = "amd-sev-snp-report"
REPORT, ENDORSEMENT, AUXBLOB = "report", "endorsement_cert", "auxblob"
CA, ROOT, CRL = "ca", "root", "crl"
REPORT_DATA_LEN: Final = 64
CERTIFICATE_MAX: Final = 4096  # AMD's have under 2 KiB; long names take long to read
CA_MAX: Final = 3  # ASK, ASVK and ARK


@dataclass(frozen=True, slots=True)
class Certificates:
    """The certificates at hand, DER, unverified."""

    leaf: bytes | None
    intermediates: tuple[bytes, ...]
    roots: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Authenticated:
    """What steps 2 to 10 found; worth nothing unless their ledger is accepted.

    Attributes:
        facts: for `rules.snp_state.judge`.
        claims: JSON-able, of report and certificate.
        not_after: Unix second at which the first certificate or list ends.
        identities: for deny lists.
    """

    facts: SnpFacts
    claims: dict[str, Any]
    not_after: int
    identities: tuple[str, ...]


def examine(question: Question) -> Examined:
    """Is this report AMD's, of now, and made for what is expected?"""
    ledger = Ledger()
    parsed: list[Report] = []

    def parse() -> str:  # 1
        raw = question.evidence.get(REPORT, b"")
        version = report_version(raw)
        if version not in VERSIONS:
            raise AttestationError(
                f"SNP report: found version {version}, expected {VERSIONS}",
                reasons=("version_not_accepted",),
            )
        parsed.append(parse_report(raw))
        return f"version {version}"

    if not ledger.run("snp 1 format", parse, "evidence_malformed"):
        ledger.skip("snp 2-11", "the report does not parse")
        return Examined(KIND, False, checks=tuple(ledger.checks), reasons=tuple(ledger.reasons))
    report = parsed[0]
    roles = {**question.evidence, **question.collateral}  # what AMD served is the better hint
    found = authenticate(ledger, report, roles, question)
    bound = run_expected(ledger, report, question.expected)
    return Examined(
        KIND,
        ledger.accepted,
        found.claims,
        found.facts,
        tuple(ledger.checks),
        tuple(ledger.reasons),
        found.not_after,
        found.identities,
        bound,
    )


def authenticate(
    ledger: Ledger, report: Report, roles: Mapping[str, bytes], question: Question
) -> Authenticated:
    """Steps 2 to 10, for evidence of any kind that holds a report.

    Args:
        ledger: the account.
        report: as parsed.
        roles: `endorsement_cert`, `auxblob`, `ca`, `root`, `crl`: those at hand, unverified.
        question: its anchors and its time count.
    """
    trusted, now = question.anchors, question.now
    at_hand: list[Certificates] = []
    pinned: list[tuple[x509.Certificate, Product]] = []
    leaves: list[x509.Certificate] = []
    keys: list[EndorsementKey] = []
    chained: list[AmdChain] = []
    ends: list[int] = []

    def collect() -> str:  # 2
        at_hand.append(_at_hand(report, roles))
        der = verify.pinned_root(at_hand[0].roots, trusted)
        root = load_certificate(der)
        product = verify.root_product(root)
        if product is None:
            raise AttestationError(
                "root: its name is of no AMD product's", reasons=("untrusted_root",)
            )
        pinned.append((root, product))
        return f"ARK of {product}"

    def endorsement() -> str:  # 3
        if at_hand[0].leaf is None:
            raise AttestationError(
                "certificate: found none for the endorsement key, expected one",
                reasons=("collateral_missing",),
                case_of="chain_invalid",
            )
        leaves.append(load_certificate(at_hand[0].leaf))
        keys.append(parse_endorsement(leaves[0]))
        return keys[0].product_name

    def chain() -> str:  # 4
        others = tuple(der for der in at_hand[0].intermediates if not trusted.trusts(der))
        chained.append(verify.verify_amd_chain(leaves[0], others, pinned[0][0], now))
        ends.append(chained[0].not_after)
        return f"until {ends[0]}"

    def revocation() -> str:  # 5
        ends.append(verify.check_revocation(roles[CRL], chained[0], now, skew=question.skew))
        return f"none revoked; next list by {ends[-1]}"

    revocable = False
    ledger.run("snp 2 root", collect, "certificate_malformed")
    if at_hand:
        ledger.run("snp 3 certificate", endorsement, "certificate_malformed")
    else:
        ledger.skip("snp 3 certificate", "the certificates do not parse")
    # Also of a certificate whose extensions are not AMD's: whether AMD signed it is worth knowing.
    if pinned and leaves:
        ledger.run("snp 4 chain", chain)
    else:
        ledger.skip("snp 4 chain", "there is no pinned root, or no certificate")
    if CRL in roles and chained:
        revocable = ledger.run("snp 5 revocation", revocation)
    elif CRL in roles:
        ledger.skip("snp 5 revocation", "there is no chain to check")
    product = pinned[0][1] if pinned else None
    key = keys[0] if keys else None
    _run_match(ledger, report, key, product)
    if leaves:
        leaf = leaves[0]
        ledger.run("snp 10 signature", lambda: verify.verify_signature(report, leaf))
    else:
        ledger.skip("snp 10 signature", "there is no key to verify with")
    return Authenticated(
        SnpFacts(report, product, key, revocable),
        _claims(report, key, product),
        min(ends, default=FOREVER),
        _identities(report, leaves[0] if leaves else None),
    )


def run_expected(ledger: Ledger, report: Report, expected: Expected) -> bool:
    """Step 11; whether anything was demanded and found."""
    wanted, code = expected.report_data, "report_data_mismatch"
    if wanted is None and expected.nonce is not None:
        wanted, code = expected.nonce.ljust(REPORT_DATA_LEN, b"\0"), "nonce_mismatch"
    if wanted is None:
        return False

    def compare() -> str:
        return verify.check_report_data(report, wanted, code)

    return ledger.run("snp 11 report data", compare)


def needs(evidence: Mapping[str, bytes]) -> tuple[Need, ...]:
    """AMD's certificates and revocation list for the product that the report names.

    A report of version 2 names none, so that its certificates must come from elsewhere; a VLEK's
    certificate is given to its provider only, and comes with the evidence.
    """
    try:
        report = parse_report(evidence.get(REPORT, b""))
    except MalformedError:
        return ()
    product = report.product
    if product is None or report.signing_key == "none":
        return ()
    signer: Literal["vcek", "vlek"] = report.signing_key
    found = [
        Need(CA, *named(amd("chain", signer, product))),
        Need(CRL, *named(amd("crl", signer, product)), required=False),  # the rule says
    ]
    if signer == "vcek" and ENDORSEMENT not in evidence:
        hwid = report.chip_id[:TURIN_HWID_LEN] if product == "Turin" else report.chip_id
        levels = tuple(decode_tcb(report.reported_tcb, product).numbers().values())
        has_table = bool(evidence.get(AUXBLOB))
        found.insert(
            0, Need(ENDORSEMENT, *named(vcek(product, hwid, levels)), required=not has_table)
        )
    return tuple(found)


def carries(facts: SnpFacts, measurement: bytes) -> str:
    """HOST_DATA names exactly this worker.

    Raises:
        AttestationError: `host_data_mismatch`.
    """
    if facts.report.host_data != host_data_value(measurement):
        raise AttestationError(
            "report: its host data is not the measurement's", reasons=("host_data_mismatch",)
        )
    return "HOST_DATA"


def _at_hand(report: Report, roles: Mapping[str, bytes]) -> Certificates:
    table = parse_table(roles.get(AUXBLOB, b""))
    leaf = roles.get(ENDORSEMENT) or table.get(report.signing_key)
    # Some hand out the certificate with its chain below it.
    below = () if leaf is None else _certificates(leaf, ENDORSEMENT, 1 + CA_MAX)
    given = _certificates(roles[CA], CA, CA_MAX) if CA in roles else ()
    hinted = tuple(
        der for name in ("ask", "ark") if name in table for der in _certificates(table[name], name)
    )
    root = _certificates(roles[ROOT], ROOT) if ROOT in roles else ()
    chain = (*given, *below[1:], *hinted)
    return Certificates(below[0] if below else None, chain, (*root, *chain))


def _certificates(raw: bytes, where: str, limit: int = 1) -> tuple[bytes, ...]:
    found = certificates(raw, where, limit)
    if max(map(len, found)) > CERTIFICATE_MAX:
        raise MalformedError(
            f"{where}: found {max(map(len, found))} bytes, expected at most {CERTIFICATE_MAX}"
        )
    return found


def _run_match(
    ledger: Ledger, report: Report, key: EndorsementKey | None, product: Product | None
) -> None:
    """Steps 6 to 9: report, certificate and chain belong together."""
    if key is None or product is None:
        ledger.skip("snp 6-9", "there is no pinned root, or no certificate")
        return
    ledger.run("snp 6 signing key", lambda: verify.check_signing_key(report, key))
    ledger.run("snp 7 product", lambda: verify.check_product(report, key, product))
    ledger.run("snp 8 chip", lambda: verify.check_chip(report, key, product))
    ledger.run("snp 9 tcb", lambda: verify.check_tcb(report, key, product), "evidence_malformed")


def _claims(report: Report, key: EndorsementKey | None, product: Product | None) -> dict[str, Any]:
    # Without a pinned root the product is what report or certificate say, and proved by nothing.
    product = product or report.product or (key.product if key is not None else None)
    return {
        **report.claims(product),
        "endorsement_key": None if key is None else key.claims(),
    }


def _identities(report: Report, leaf: x509.Certificate | None) -> tuple[str, ...]:
    found = []
    if any(report.chip_id):
        found.append(f"chip_id:{report.chip_id.hex()}")
        if not any(report.chip_id[TURIN_HWID_LEN:]):
            found.append(f"chip_id:{report.chip_id[:TURIN_HWID_LEN].hex()}")  # as Turin's is known
    if leaf is not None:
        found.append(f"key:{verify.key_digest(leaf).hex()}")
    return tuple(found)


SCHEME: Final = Scheme(
    kind=KIND,
    trust="hardware",
    evidence=((REPORT,), (ENDORSEMENT, AUXBLOB)),
    collateral=(ENDORSEMENT, CA, ROOT, CRL),
    anchors=anchors.AMD,
    examine=examine,
    needs=needs,
    rule=rules.parse,
    judge=judge,
    carries=carries,
    rule_keys=rules.KEYS,
)

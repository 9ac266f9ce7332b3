"""Steps 11 to 19 of an appraisal for the two kinds that no vendor's hardware stands behind.

Step numbers and reason codes are those of `attestation.appraise`; for hardware evidence see
`attestation.hardware`.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wire.errors import refused
from wire.limits import CLOCK_SKEW_S

from .binding import LIFE_DEFAULT_S, report32, report_data
from .evidence import SOFTWARE, TPM2
from .examined import FOREVER
from .formats import software, tpm
from .measurement import combine, digest_bytes
from .proof import Proof
from .registers import tpm_pcr_value
from .verify import tpm as verify_tpm
from .verify.credential import check_activation
from .verify.software import verify_statement
from .verify.x509 import TCG_EK_CERTIFICATE, verify_chain

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.x509 import Certificate

    from .binding import Binding
    from .ledger import Ledger
    from .rules.software import SoftwareRule
    from .rules.tpm import TpmRule
    from .verify.credential import Activation


def prove_software(
    ledger: Ledger, body: bytes, rule: SoftwareRule, binding: Binding, now: int
) -> Proof | None:
    """Steps 11, 15, 17, 18, 19 for a development root's statement; 12-14 and 16 do not apply."""
    parsed: list[software.SoftwareStatement] = []

    def parse() -> str:  # step 11
        parsed.append(software.parse_body(body))
        return f"made at {parsed[0].ts} ms"

    if not ledger.run("11 format", parse, "evidence_malformed"):
        ledger.skip("12-19", "the evidence does not parse")
        return None
    statement = parsed[0]

    def signature() -> str:  # step 15
        root = verify_statement(statement, rule.roots)
        return f"development root {root.hex()[:16]}"

    def names_binding() -> str:  # step 17
        if not hmac.compare_digest(statement.report_data, report_data(binding.raw)):
            raise refused("report_data_mismatch", "software: made for another binding")
        return "report_data equals the binding's"

    def parts() -> str:  # step 19
        if combine(statement.parts) != statement.measurement:
            raise refused("measurement_mismatch", "software: the parts do not give the measurement")
        return f"{len(statement.parts)} parts give it"

    ledger.run("15 signature", signature)
    ledger.run("17 binding named", names_binding)
    ledger.run("18 time", lambda: _time(statement.ts // 1000, binding, now))
    ledger.run("19 parts", parts)
    return Proof(SOFTWARE, statement.measurement, FOREVER, "software")


def _time(made: int, binding: Binding, now: int) -> str:  # step 18
    if made > now + CLOCK_SKEW_S:
        raise refused("evidence_not_yet_valid", f"software: found time {made}, expected ≤ {now}")
    # A stock of statements made ahead of time would outlive a revocation of what made them.
    earliest = binding.nbf - LIFE_DEFAULT_S
    if not earliest <= made < binding.exp:
        raise refused(
            "evidence_stale",
            f"software: found time {made}, expected {earliest} to {binding.exp}",
        )
    return f"made {made - binding.nbf} s after nbf"


def prove_tpm(
    ledger: Ledger,
    body: bytes,
    rule: TpmRule,
    binding: Binding,
    now: int,
    activation: Activation | None,
) -> Proof | None:
    """Steps 11 to 17 and 19 for a TPM quote; 18 does not apply, a TPM knows no time of day."""
    parsed: list[tpm.TpmEvidence] = []
    certified: list[tuple[Certificate, int]] = []

    def parse() -> str:  # step 11
        parsed.append(tpm.parse_body(body))
        return f"firmware {parsed[0].quote.firmware:016x}, resets {parsed[0].quote.resets}"

    if not ledger.run("11 format", parse, "evidence_malformed"):
        ledger.skip("12-19", "the evidence does not parse")
        return None
    found = parsed[0]

    def chain() -> str:  # step 12
        certified.append(
            verify_chain(found.ek_cert, found.chain, rule.roots, now, TCG_EK_CERTIFICATE)
        )
        return f"under one of {len(rule.roots)} pinned roots"

    def registers() -> str:  # step 19
        detail = verify_tpm.check_registers(found.quote, found.signature, {tpm.BANK: found.pcrs})
        value = found.pcrs.get(rule.pcr)
        if value is None:
            raise refused("pcr_selection", f"quote: expected register {rule.pcr} to be covered")
        expected = tpm_pcr_value(digest_bytes(combine(found.parts)))
        if not hmac.compare_digest(value, expected):
            raise refused(
                "pcr_mismatch", f"register {rule.pcr}: not one extension by the measurement"
            )
        return f"{detail}; register {rule.pcr} holds the measurement"

    if ledger.run("12 certificate chain", chain):
        ledger.run(
            "13 endorsement key",
            lambda: verify_tpm.check_endorsement_key(found.ek, certified[0][0]),
        )
    else:
        ledger.skip("13 endorsement key", "no certificate to compare with")
    ledger.run("14 attestation key", lambda: verify_tpm.check_attestation_key(found.ak))
    ledger.run(
        "15 signature",
        lambda: verify_tpm.verify_signature(
            found.quote, found.signature, found.ak.key, (found.ak.scheme, found.ak.scheme_hash)
        ),
    )
    _activation(ledger, found, activation)
    ledger.run(
        "17 binding named",
        lambda: verify_tpm.check_extra_data(
            found.quote, report32(binding.raw), "report_data_mismatch"
        ),
    )
    ledger.run("19 registers", registers)
    not_after = certified[0][1] if certified else 0
    return Proof(
        TPM2,
        combine(found.parts),
        not_after,
        "simulated",
        identities=tuple(_identity(public.key) for public in (found.ak, found.ek)),
        shows=("key",),
    )


def _identity(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    """A TPM's key, as deny lists name it."""
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"key:{hashlib.sha256(spki).hexdigest()}"


def _activation(ledger: Ledger, found: tpm.TpmEvidence, activation: Activation | None) -> None:
    step = "16 activation"  # step 16
    if activation is None or activation.answer is None:
        ledger.missing(step, "activation_missing", "the TPM was not asked, or gave no answer")
        return
    ledger.run(step, lambda: check_activation(activation, found.ak.name, found.ek.name))

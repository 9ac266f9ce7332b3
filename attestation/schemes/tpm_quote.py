"""`tpm2-quote`: TPM 2.0 quotes by an attestation key that others than the evidence vouch for.

Examination, in numbered steps with their reason codes:
 1 format         every role parses, no two contradict      evidence_malformed
 2 key            a certificate under a pinned root names   collateral_missing, untrusted_root,
                  the key, or the relying party brought     chain_invalid, crl_invalid, crl_expired,
                  or lists it                               crl_not_yet_valid, revoked,
                                                            certificate_not_valid_at_time,
                                                            unknown_signing_key, ak_not_accepted
 3 key attributes the public area is that key's, and it is  ak_mismatch, ak_attributes
                  restricted, fixed to and made by its TPM
 4 signatures     the key signed every quote, with SHA-2    signature_invalid
 5 registers      exactly the registers each quote selects, pcr_selection, pcr_digest_mismatch
                  and their values give its digest
 6 nonce          every quote carries the expected nonce    nonce_mismatch,
                                                            report_data_mismatch
 7 event log      a log, if there is one, replays to every  event_log_mismatch
                  quoted register that it extends

Step 2 knows two ways. `ak_cert` in the evidence counts under a `root` in the collateral that the
policy pins (this kind has no vendor's own), through `intermediate`, or `ak_chain` in the evidence:
links, never anchors. Without a certificate, the key must be `ak_spki` in the collateral: the
relying party's own knowledge, which evidence cannot bring, because `ak_spki` is no role of the
evidence. Or its fingerprint must be in `aks` of the collateral; then the evidence may show the key
itself. In both cases a certificate that no `root` could vouch for is passed over; not so beside
`ak_spki` where a revocation list is to be enforced. What is given of both must agree. A key known
only by its SubjectPublicKeyInfo has no attributes to check in step 3: whoever lists it vouches for
them. In an appraisal `root`, `ak_spki` and `aks` are what the policy says (`own`), whatever came
with the evidence.

Nobody signs the public area of step 3. A root that certifies only attestation keys makes it true,
and that is what a policy says of a root when it pins it.

The judgement's steps 8 to 12 stand in `rules.tpm_quote`. After them, whatever the rule and whoever
asks:
13 caller's data  no quote is without: it would answer      nonce_mismatch
                  every question ever asked

Not proved: which machine the TPM is in, or that it is no emulation; that is the root's word. A
quote of the SHA-1 bank is read, verified and replayed, but satisfies no demand. Registers 16 and 23
satisfy none either.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from attestation.anchors import NONE
from attestation.examined import Examined, Question
from attestation.formats.pem import certificates, encode
from attestation.formats.tpm_quote import ROLES, TpmQuotes, parse_tpm_quotes
from attestation.ledger import Ledger
from attestation.rules import tpm_quote as rules
from attestation.rules.demands import ROOTS_MAX
from attestation.rules.tpm_quote import TpmQuoteFacts
from attestation.scheme import Need, Scheme
from attestation.verify.event_log import check_quoted_registers
from attestation.verify.tpm import check_freshness, check_registers, verify_signature
from attestation.verify.tpm_key import (
    SigningKey,
    TrustedKey,
    brought_key,
    check_public_area,
    check_stated,
    listed_key,
    shown_key,
    verify_key_certificate,
)
from wire.errors import AttestationError, refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attestation.examined import Expected
    from attestation.rules.tpm_quote import TpmQuoteRule

_refused: Final = partial(refused, about="attestation key")
KIND: Final = "tpm2-quote"
ROOT, INTERMEDIATE, AK_SPKI, AKS = "root", "intermediate", "ak_spki", "aks"
CRLS: Final = ("crl_intermediate", "crl_root")  # by the issuer of the key's certificate, by its
_OTHER: Final = "the certificate names another key than the trusted"


def examine(question: Question) -> Examined:
    """Did a key that is trusted sign these quotes, of these registers, for this nonce?"""
    ledger = Ledger()
    parsed: list[TpmQuotes] = []
    trusted: list[TrustedKey] = []

    def parse() -> str:  # 1
        parsed.append(parse_tpm_quotes(question.evidence))
        return f"{len(parsed[0].quotes)} quotes"

    if not ledger.run("tpm 1 format", parse, "evidence_malformed"):
        ledger.skip("tpm 2-7", "the evidence does not parse")
        return Examined(KIND, False, checks=tuple(ledger.checks), reasons=tuple(ledger.reasons))
    found = parsed[0]

    def key() -> str:  # 2
        trusted.append(_trusted_key(found, question))
        return "certified" if trusted[0].certified else "trusted beforehand"

    if ledger.run("tpm 2 key", key, "chain_invalid"):
        _run_key_steps(ledger, found, trusted[0])
    elif (shown := shown_key(found.ak_cert or b"")) is not None:
        # A forged quote must not pass for one whose certificate has merely ended.
        ledger.skip("tpm 3", "no attestation key is trusted")
        ledger.run("tpm 4 signatures", lambda: _signed(found, shown))
    else:
        ledger.skip("tpm 3-4", "no attestation key is trusted")
    ledger.run("tpm 5 registers", lambda: _registers(found))
    bound = ledger.run("tpm 6 nonce", lambda: _nonce(found, question.expected))
    log = found.event_log
    if log is not None:
        ledger.run("tpm 7 event log", lambda: check_quoted_registers(log, _quoted(found)))
    return Examined(
        KIND,
        ledger.accepted,
        claims(found),
        TpmQuoteFacts(found, trusted[0] if trusted else None),
        tuple(ledger.checks),
        tuple(ledger.reasons),
        **_lasting(trusted),
        bound=bound and question.expected.nonce is not None and ledger.accepted,
    )


def claims(found: TpmQuotes) -> dict[str, Any]:
    """What the quotes say, JSON-able; members common to all quotes stand at the top, too."""
    quotes = {}
    for signed in found.quotes:
        quote = signed.quote
        said = {"extra_data": quote.extra_data.hex(), "pcr_digest": quote.pcr_digest.hex()}
        for bank in (selection.bank for selection in quote.covered):
            values = signed.registers.get(bank, {})
            quotes[bank] = {
                **said,
                "firmware_version": f"{quote.firmware:016x}",
                "pcrs": {str(number): values[number].hex() for number in sorted(values)},
            }
    common: dict[str, Any] = {"quotes": quotes}
    for name in ("extra_data", "pcr_digest", "firmware_version"):
        said_values = {entry[name] for entry in quotes.values()}
        if len(said_values) == 1:
            common[name] = said_values.pop()
    if found.event_log is not None:
        common["events"] = len(found.event_log.events)
    return common


def judge(ledger: Ledger, facts: TpmQuoteFacts, rule: TpmQuoteRule, now: int) -> None:
    """The rule's steps, and that every quote was made for somebody."""
    rules.judge(ledger, facts, rule, now)
    ledger.run("tpm 13 caller's data", lambda: _asked_for(facts.parsed))


def _asked_for(found: TpmQuotes) -> str:  # 13
    if not all(signed.quote.extra_data for signed in found.quotes):
        raise AttestationError(
            "quote: found no caller's data, expected a nonce", reasons=("nonce_mismatch",)
        )
    return f"in {len(found.quotes)} quotes"


def _trusted_key(found: TpmQuotes, question: Question) -> TrustedKey:  # 2
    collateral = question.collateral
    brought = brought_key(collateral[AK_SPKI]) if AK_SPKI in collateral else None
    if not found.ak_cert or _without_root(collateral):
        if brought is None and AKS in collateral:
            brought = listed_key(collateral[AKS], found.ak, found.stated_key)
        if brought is None:
            raise _refused(
                "collateral_missing",
                "found neither a certificate nor a trusted key",
                case_of="unknown_signing_key",
            )
        if AK_SPKI in collateral and shown_key(found.ak_cert or b"") not in (None, brought.key):
            raise _refused("unknown_signing_key", _OTHER)
        return brought
    given = certificates(collateral[ROOT], ROOT, ROOTS_MAX) if ROOT in collateral else ()
    roots = question.anchors.among(given)
    if not given:
        raise _refused(
            "collateral_missing",
            "found no root, expected one that is pinned",
            case_of="chain_invalid",
        )
    if not roots:
        raise _refused("untrusted_root", "found a root that is not pinned")
    chain = found.intermediates
    if INTERMEDIATE in collateral:
        chain = certificates(collateral[INTERMEDIATE], INTERMEDIATE)
    lists = [collateral.get(role) for role in CRLS]
    certified = verify_key_certificate(
        found.ak_cert, chain, roots, lists, question.now, skew=question.skew
    )
    if brought is not None and brought.spki != certified.spki:
        raise _refused("unknown_signing_key", _OTHER)
    return certified


def _without_root(collateral: Mapping[str, bytes]) -> bool:
    """Whether the key is trusted by itself, so that no root is needed to vouch for a certificate.

    Beside `ak_spki` a revocation list is the relying party's own demand: to be enforced, it needs
    the chain.
    """
    listed = any(role in collateral for role in CRLS)
    return ROOT not in collateral and (AKS in collateral or (AK_SPKI in collateral and not listed))


def _run_key_steps(ledger: Ledger, found: TpmQuotes, key: TrustedKey) -> None:  # 3, 4
    ak = found.ak
    scheme = None
    if ak is not None:
        ledger.run("tpm 3 key attributes", lambda: check_public_area(key, ak))
        scheme = (ak.scheme, ak.scheme_hash)
    elif key.certified:
        # A certificate may name any key of the TPM, also one that signs forged quotes.
        ledger.missing(
            "tpm 3 key attributes", "ak_attributes", "no public area of the certified key"
        )
    if found.stated_key:
        ledger.run("tpm 3 key stated", lambda: check_stated(key, found.stated_key))

    ledger.run("tpm 4 signatures", lambda: _signed(found, key.key, scheme))


def _signed(found: TpmQuotes, key: SigningKey, scheme: tuple[int, str] | None = None) -> str:  # 4
    details = [
        verify_signature(signed.quote, signed.signature, key, scheme) for signed in found.quotes
    ]
    return f"{len(details)} quotes, {details[0]}"


def _registers(found: TpmQuotes) -> str:  # 5
    details = [
        check_registers(signed.quote, signed.signature, signed.registers) for signed in found.quotes
    ]
    return "; ".join(details)


def _nonce(found: TpmQuotes, expected: Expected) -> str:  # 6
    if expected.nonce is None and expected.report_data is None:
        return "no nonce is asked for"  # that there is one, the judgement asks
    return "; ".join(check_freshness(signed.quote, expected) for signed in found.quotes)


def _quoted(found: TpmQuotes) -> dict[str, Mapping[int, bytes]]:
    return {bank: values for signed in found.quotes for bank, values in signed.registers.items()}


def _lasting(trusted: list[TrustedKey]) -> dict[str, Any]:
    if not trusted:
        return {}
    return {
        "not_after": trusted[0].not_after,
        "identities": (f"key:{trusted[0].fingerprint.hex()}",),
    }


def needs(evidence: Mapping[str, bytes]) -> tuple[Need, ...]:
    """Nothing that a vendor serves: the relying party's configuration brings roots and keys."""
    del evidence
    return ()


def own(demands: TpmQuoteRule, roots: tuple[bytes, ...]) -> Mapping[str, bytes]:
    """The relying party's own word, out of a policy: roots, and fingerprints of keys."""
    return {ROOT: encode(roots), AKS: b"".join(sorted(demands.aks or ())), AK_SPKI: b""}


SCHEME: Final = Scheme(
    kind=KIND,
    trust="vtpm",
    evidence=((), ROLES),
    collateral=(ROOT, INTERMEDIATE, AK_SPKI, AKS, *CRLS),
    anchors=NONE,
    examine=examine,
    needs=needs,
    rule=rules.parse,
    judge=judge,
    carries=rules.carries,
    rule_keys=rules.KEYS,
    own=own,
)

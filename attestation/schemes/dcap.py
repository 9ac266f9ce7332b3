"""Examination of Intel DCAP evidence, shared by `intel-tdx-quote` and `intel-sgx-quote`.

Roles: evidence `quote`; collateral `collateral` (nine members as JSON) or `tcb_info`,
`qe_identity`, `tcb_sign_chain`, `pck_sign_chain`, `pck_crl`, `root_crl`; and `root`, which counts
only if it is pinned. `pck_cert` and `other_root` may be there and are not used.

Steps, whose numbers are the ledger's ("tdx 1 format"):
 1. format: a quote of an accepted version, whole, its PCK certificate, and zeros after it at most;
 2. root: one that is pinned is at hand;
 3. collateral: all parts are there and of their form;
 4. dates: TCB info, QE identity and both CRLs hold now (`verify.intel_collateral` 1, 4);
 5. match: they are for this platform, TEE and PCK CA (`verify.intel_collateral` 2);
 6. dcap-qvl: the quote verifier this project depends on finds it genuine (`verify.dcap`);
 7. chain: the PCK chain ends in the pinned root and is valid now (`verify.dcap_quote` 1);
 8. quoting enclave: Intel's, and it names the attestation key (`verify.dcap_quote` 2);
 9. signature: the attestation key signed the quote (`verify.dcap_quote` 3);
10. issuers: the statements are Intel's (`verify.intel_collateral` 3);
11. revocation: nothing is on the CRLs (`verify.intel_collateral` 4);
12. tcb: the platform has a level that is not revoked, and dcap-qvl read the same facts and level
    (`verify.intel_tcb`, `verify.dcap`);
13. report data: equals what the relying party expects, where it expects anything.

Where dcap-qvl accepts a quote as a whole, the signatures of steps 7 to 11 and what the lists say
rest on it. This library asks what it does not: whether the root is still valid, whether each issuer
is the one above and may sign certificates and lists, whether a certificate has conditions of its
own, for what a statement's signer is certified, and whether the quoting enclave's report names more
than one key. Everywhere else this library verifies all of them by itself: where dcap-qvl has no
opinion because the state is one for a policy (step 6 passes then, and nothing rests on it), and
where evidence is refused, so that all reasons are known.

Reason codes: `evidence_malformed`, `version_not_accepted`, `wrong_tee`, `trailing_bytes` (1),
`untrusted_root` (2), `collateral_missing`, `collateral_malformed` (3), `report_data_mismatch` (13),
and those of the modules named.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestation.collateral_key import dcap, named
from attestation.examined import FOREVER, Examined
from attestation.formats import intel_collateral as parts
from attestation.formats import intel_statements as texts
from attestation.formats.dcap_quote import Quote, parse_quote, quote_version
from attestation.formats.pck import Chain, Pck, parse_chain, parse_pck, self_issued
from attestation.ledger import Ledger
from attestation.scheme import Need
from attestation.verify import dcap as second
from attestation.verify import dcap_quote as quotes
from attestation.verify import intel_collateral as statements
from attestation.verify.intel_tcb import TcbVerdict, evaluate
from wire.errors import AnchorholdError, AttestationError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.x509 import Certificate

    from attestation.examined import Question

EVIDENCE: Final = (("quote",), ())
COLLATERAL: Final = ("collateral", *parts.ROLES, "pck_cert", "other_root", "root")


@dataclass(frozen=True, slots=True)
class Family:
    """What tells the two kinds apart."""

    kind: str
    name: str
    tee: Literal["sgx", "tdx"]
    versions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DcapFacts:
    """What the rules judge.

    Attributes:
        quote: what was quoted.
        pck: the platform; None where its certificate could not be read.
        tcb: how up to date it is; None where that was not proved.
    """

    quote: Quote
    pck: Pck | None = None
    tcb: TcbVerdict | None = None


@dataclass(frozen=True, slots=True)
class _Subject:
    """The parsed evidence, and the pinned roots at hand, the one that issued the chain first."""

    quote: Quote
    chain: Chain
    pck: Pck
    roots: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Stated:
    """The parsed collateral."""

    collateral: parts.Collateral
    info: texts.TcbInfo
    identity: texts.QeIdentity


class _Examination:
    """One examination: what each step found, for the steps after it."""

    def __init__(self, family: Family, question: Question) -> None:
        self.family = family
        self.question = question
        self.raw = question.evidence.get("quote", b"")
        self.ledger = Ledger()
        self.quote: Quote | None = None
        self.pck: Pck | None = None
        self.subject: _Subject | None = None
        self.stated: _Stated | None = None
        self.opinion: second.Opinion | None = None
        self.issuers: tuple[Certificate, ...] = ()
        self.tcb: TcbVerdict | None = None
        self.not_after = FOREVER
        self.bound = False

    def run(self) -> Examined:
        if self.step("1 format", self.format, "evidence_malformed") and self.subject is not None:
            self.genuine(self.subject)
        else:
            self.ledger.skip(f"{self.family.name} 2-13", "the evidence does not parse")
        return self.result()

    def genuine(self, subject: _Subject) -> None:
        anchored = self.step("2 root", lambda: self.root(subject))
        stated = self.collateral()
        if stated is not None:
            self.step("4 dates", lambda: self.dates(stated))
            self.step("5 match", lambda: self.match(subject, stated))
        if stated is None or self.ledger.reasons:
            self.ledger.skip(f"{self.family.name} 6 dcap-qvl", "the evidence is refused")
        else:
            self.step("6 dcap-qvl", lambda: self.ask(subject, stated))
        if stated is None or self.opinion is None or self.opinion.state:
            self.verify(subject, stated, self.chain(subject) if anchored else None)
        else:
            self.step("7 chain", lambda: self.standing(subject))
            self.step("8 quoting enclave", lambda: quotes.check_named_key(subject.quote))
            self.step("9 signature", lambda: "by dcap-qvl")
            self.step("10 issuers", lambda: self.signers(stated.collateral))
            self.step("11 revocation", lambda: statements.check_list_issuers(self.issuers))
        if stated is not None and not self.failed("2", "5", "7", "10"):
            self.step("12 tcb", lambda: self.level(subject, stated))
        else:
            self.ledger.skip(f"{self.family.name} 12 tcb", "no statement to go by")
        expected = self.question.expected.report_data
        if expected is not None:
            self.bound = self.step("13 report data", lambda: _equal(subject.quote, expected))

    def step(self, name: str, check: Callable[[], str], malformed: str = "malformed") -> bool:
        return self.ledger.run(f"{self.family.name} {name}", check, malformed)

    def failed(self, *numbers: str) -> bool:
        """Whether one of these steps ran and failed."""
        return any(reason.step.split(" ")[1] in numbers for reason in self.ledger.reasons)

    def format(self) -> str:  # step 1
        version = quote_version(self.raw)
        if version not in self.family.versions:
            wanted = " or ".join(map(str, self.family.versions))
            raise _refused(
                "version_not_accepted", f"quote: found version {version}, expected {wanted}"
            )
        quote = self.quote = parse_quote(self.raw)
        if quote.tee.lower() != self.family.tee:
            raise _refused(
                "wrong_tee", f"quote: found {quote.tee}, expected {self.family.tee.upper()}"
            )
        chain = parse_chain(quote.cert_data, "PCK chain")
        self.pck = parse_pck(chain.ders[0])
        roots = self.question.anchors.among(
            (*chain.ders, *_certificates(self.question.collateral.get("root", b"")))
        )
        # Asked with a root that another CA issued, dcap-qvl ends the process.
        roots = tuple(der for der in dict.fromkeys(roots) if self_issued(der))
        roots = quotes.nearest_first(chain, roots, self.question.now)
        self.subject = _Subject(quote, chain, self.pck, roots)
        self.step("1 trailing bytes", lambda: _zeros(quote.trailing))
        return f"version {version}, {quote.body_type}"

    def root(self, subject: _Subject) -> str:  # step 2
        if not subject.roots:
            raise _refused("untrusted_root", "PCK chain: found no pinned root at its end")
        return f"root {hashlib.sha256(subject.roots[0]).hexdigest()[:16]}"

    def collateral(self) -> _Stated | None:  # step 3
        held = self.question.collateral
        if "collateral" not in held and not any(role in held for role in parts.ROLES):
            self.ledger.missing(
                f"{self.family.name} 3 collateral",
                "collateral_missing",
                "found none, expected Intel's",
            )
            return None

        def parse() -> str:
            found = parts.parse_collateral(held)
            info = texts.parse_tcb_info(found.tcb_info)
            identity = texts.parse_qe_identity(found.qe_identity)
            self.stated = _Stated(found, info, identity)
            return f"{info.id} {info.fmspc.hex()}, {identity.id}"

        self.step("3 collateral", parse, "collateral_malformed")
        return self.stated

    def dates(self, stated: _Stated) -> str:  # step 4
        now, skew = self.question.now, self.question.skew
        ends = statements.check_statement_dates(stated.info, stated.identity, now, skew=skew)
        ends = min(ends, statements.check_list_dates(stated.collateral, now, skew=skew))
        self.not_after = min(self.not_after, ends)
        return f"until {ends}"

    def match(self, subject: _Subject, stated: _Stated) -> str:  # step 5
        return statements.check_match(
            subject.quote,
            subject.pck,
            subject.chain.ders[1:],
            subject.roots,
            stated.collateral,
            stated.info,
            stated.identity,
        )

    def ask(self, subject: _Subject, stated: _Stated) -> str:  # step 6
        # Its clock knows no skew: it is put forward to the statements that step 4 accepted.
        clock = max(self.question.now, stated.info.issued, stated.identity.issued)
        self.opinion = second.ask(self.raw, stated.collateral, subject.roots[0], clock)
        if self.opinion.state:
            return "no opinion: a state that it leaves to a policy"
        return "genuine"

    def chain(self, subject: _Subject) -> quotes.Certified | None:  # step 7
        found: list[quotes.Certified] = []

        def verify() -> str:
            found.append(quotes.verify_pck_chain(subject.chain, subject.roots, self.question.now))
            self.not_after = min(self.not_after, found[0].not_after)
            return f"{len(found[0].chain)} certificates"

        self.step("7 chain", verify)
        return found[0] if found else None

    def standing(self, subject: _Subject) -> str:  # step 7, where dcap-qvl verified the signatures
        ends, self.issuers = quotes.check_standing(
            subject.chain, subject.pck.certificate, subject.roots, self.question.now
        )
        self.not_after = min(self.not_after, ends)
        return "signatures by dcap-qvl"

    def signers(self, collateral: parts.Collateral) -> str:  # step 10, in the same case
        ends = statements.check_signers(collateral, self.question.now)
        self.not_after = min(self.not_after, ends)
        return "signatures by dcap-qvl"

    def verify(
        self, subject: _Subject, stated: _Stated | None, certified: quotes.Certified | None
    ) -> None:
        """Steps 8 to 11, by this library."""
        quote, now, skew = subject.quote, self.question.now, self.question.skew
        pck = subject.pck.certificate
        self.step("8 quoting enclave", lambda: quotes.verify_quoting_enclave(quote, pck))
        self.step("9 signature", lambda: quotes.verify_quote_signature(quote))
        if stated is None or certified is None:
            self.ledger.skip(f"{self.family.name} 10-11", "no chain, or nothing to verify")
            return
        collateral = stated.collateral

        def issuers() -> str:
            statements.verify_signatures(collateral, certified.root, now)
            ends = statements.check_signers(collateral, now)
            self.not_after = min(self.not_after, ends)
            return "TCB info and QE identity"

        self.step("10 issuers", issuers)
        self.step(
            "11 revocation",
            lambda: statements.check_revocation(collateral, certified, now, skew=skew),
        )

    def level(self, subject: _Subject, stated: _Stated) -> str:  # step 12
        tcb = evaluate(subject.quote, subject.pck, stated.info, stated.identity)
        if self.opinion is not None:
            second.compare(self.opinion, subject.pck, tcb)
        self.tcb = tcb
        return tcb.status

    def result(self) -> Examined:
        claims: dict[str, Any] = {} if self.quote is None else self.quote.claims()
        identities: tuple[str, ...] = ()
        if self.pck is not None:
            claims |= self.pck.claims()
            identities = _identities(self.pck)
        if self.stated is not None:
            claims["tcb_info_fmspc"] = self.stated.info.fmspc.hex()
        if self.tcb is not None:
            claims |= self.tcb.claims()
        reasons = tuple(self.ledger.reasons)
        return Examined(
            kind=self.family.kind,
            authentic=self.ledger.accepted,
            claims=claims,
            facts=None
            if self.subject is None
            else DcapFacts(self.subject.quote, self.pck, self.tcb),
            checks=tuple(self.ledger.checks),
            reasons=reasons,
            not_after=self.not_after,
            identities=identities,
            bound=self.bound and not reasons,
        )


def examine(family: Family, question: Question) -> Examined:
    """Whether a quote is genuine (steps 1 to 13)."""
    return _Examination(family, question).run()


def needs(family: Family, evidence: Mapping[str, bytes]) -> tuple[Need, ...]:
    """The one piece of collateral to ask for: all nine members, by TEE, FMSPC and PCK CA."""
    try:
        quote = parse_quote(evidence.get("quote", b""))
        pck = parse_pck(parse_chain(quote.cert_data, "PCK chain").ders[0])
        return (Need("collateral", *named(dcap(family.tee, pck.fmspc, pck.ca))),)
    except AnchorholdError:
        return ()


def _zeros(trailing: bytes) -> str:  # step 1
    if any(trailing):
        # Nothing signs these bytes: one quote would have as many names as there are tails.
        raise _refused("trailing_bytes", "quote: found bytes after its end that are not zero")
    return f"{len(trailing)} zeros"


def _equal(quote: Quote, expected: bytes) -> str:  # step 13
    if not hmac.compare_digest(quote.body.report_data, expected):
        raise _refused("report_data_mismatch", "quote: found other report data than expected")
    return "equals what is expected"


def _refused(code: str, detail: str) -> AttestationError:
    return AttestationError(detail, reasons=(code,))


def _certificates(raw: bytes) -> tuple[bytes, ...]:
    try:
        return parse_chain(raw, "root").ders if raw else ()
    except MalformedError:
        return ()  # it is no pinned root, and only that is looked for


def _identities(pck: Pck) -> tuple[str, ...]:
    key = pck.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    serial = f"{pck.certificate.serial_number:x}"
    return (
        f"ppid:{pck.ppid.hex()}",
        f"serial:{serial.zfill(len(serial) + len(serial) % 2)}",  # deny lists have whole octets
        f"key:{hashlib.sha256(key).hexdigest()}",
    )

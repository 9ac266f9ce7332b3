"""Revocation lists: whose they are, when they hold, and what they revoke."""

from __future__ import annotations

import contextlib
import warnings
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.amd import ARK_SERIAL, ASK_SERIAL, ASVK_SERIAL, DAY, LEAF_SERIAL, NOW, Amd
from simulators.intel_parts import stamp

from attestation.schemes.snp import SCHEME
from attestation.verify.crl import CRL_MAX, PART_MAX, check_crl, load_crl
from attestation.verify.x509 import load_certificate
from wire.errors import AttestationError
from wire.limits import CLOCK_SKEW_S

if TYPE_CHECKING:
    from collections.abc import Callable


class Issuer:
    """A certification authority with an elliptic curve key, for lists of any shape."""

    def __init__(self, name: str = "authority", *, crl_sign: bool | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.crl_sign = crl_sign
        self.certificate = load_certificate(self.certify(1))

    def certify(self, serial: int) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.name)
            .public_key(self.key.public_key())
            .serial_number(serial)
            .not_valid_before(at(-DAY))
            .not_valid_after(at(DAY))
        )
        if self.crl_sign is not None:
            usage = x509.KeyUsage(*[False] * 5, True, self.crl_sign, *[False] * 2)
            builder = builder.add_extension(usage, critical=True)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)

    def list(
        self,
        *serials: int,
        key: Any = None,
        digest: Any = None,
        start: int = -DAY,
        end: int = DAY,
        extension: x509.ExtensionType | None = None,
        critical: bool = True,
        reason: x509.ReasonFlags | None = None,
    ) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(at(start))
            .next_update(at(end))
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at(0))
            if reason is not None:
                entry = entry.add_extension(x509.CRLReason(reason), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        if extension is not None:
            builder = builder.add_extension(extension, critical=critical)
        signer = key or self.key
        if isinstance(signer, ed25519.Ed25519PrivateKey):
            return builder.sign(signer, None).public_bytes(Encoding.DER)
        return builder.sign(signer, digest or hashes.SHA256()).public_bytes(Encoding.DER)


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=seconds)


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(AttestationError) as caught:
        call()
    return caught.value.reasons[0]


def check(issuer: Issuer, raw: bytes, serial: int = 5, now: int = NOW) -> int:
    return check_crl(raw, issuer.certificate, [load_certificate(issuer.certify(serial))], now)


def test_a_list_that_names_others_passes_and_says_until_when(issuer: Issuer) -> None:
    assert check(issuer, issuer.list()) == NOW + DAY
    assert check(issuer, issuer.list(4, 6)) == NOW + DAY


def test_a_listed_certificate_is_revoked(issuer: Issuer) -> None:
    assert refused(lambda: check(issuer, issuer.list(4, 5))) == "revoked"


def test_a_certificate_on_hold_is_revoked(issuer: Issuer) -> None:
    held = issuer.list(5, reason=x509.ReasonFlags.certificate_hold)
    assert refused(lambda: check(issuer, held)) == "revoked"


def test_a_list_that_is_hex_or_pem_is_refused(issuer: Issuer) -> None:
    der = issuer.list()
    pem = load_crl(der).public_bytes(Encoding.PEM)
    for raw in (der.hex().encode(), pem, b"", der + b"\0", der[:-1], bytes([0x30]) * 9):
        assert refused(lambda raw=raw: check(issuer, raw)) == "crl_invalid"  # type: ignore[misc]


def test_a_list_that_is_too_large_is_refused_unread(issuer: Issuer) -> None:
    raw = issuer.list()
    assert refused(lambda: check(issuer, raw + bytes(CRL_MAX))) == "crl_invalid"


def test_a_list_whose_issuers_name_or_extensions_are_too_long_is_refused_unread() -> None:
    issuer = Issuer()
    oid = x509.ObjectIdentifier("1.2.3.4")
    for length, accepted in ((PART_MAX - 100, True), (PART_MAX, False)):
        more = x509.UnrecognizedExtension(oid, bytes(length))
        raw = issuer.list(extension=more, critical=False)
        issuer.name = x509.Name([x509.NameAttribute(oid, "a" * length)])
        named = issuer.list()
        for der in (raw, named):
            if accepted:
                load_crl(der)
            else:
                assert refused(lambda der=der: load_crl(der)) == "crl_invalid"  # type: ignore[misc]


def test_a_part_of_exactly_that_length_is_read() -> None:
    issuer, oid = Issuer(), x509.ObjectIdentifier("1.2.3.4")
    for over in range(2):
        # The text is seventeen bytes less: its type, its sets and their lengths.
        issuer.name = x509.Name([x509.NameAttribute(oid, "a" * (PART_MAX - 17 + over))])
        inner = len(issuer.name.public_bytes()) - 4
        assert inner == PART_MAX + over
        if over:
            assert refused(lambda: load_crl(issuer.list())) == "crl_invalid"
        else:
            load_crl(issuer.list())


def test_names_of_every_length_below_that_are_read() -> None:
    issuer = Issuer()
    for length in (*range(90, 140), *range(230, 270)):
        issuer.name = x509.Name([x509.NameAttribute(NameOID.DN_QUALIFIER, "a" * length)])
        assert load_crl(issuer.list(4)).issuer == issuer.name


def tlv(tag: int, body: bytes) -> bytes:
    """One DER value, whatever its length."""
    octets = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    many = bytes((0x80 + len(octets),)) if len(body) > 127 else b""
    return bytes((tag,)) + many + (octets or b"\0") + body


DATE, DATE_2050, TEXT, SEQUENCE = 0x17, 0x18, 0x0C, 0x30
SHORT = tlv(TEXT, b"\0")
OVER = tlv(TEXT, bytes(5000))


def by_hand(*parts: bytes, after: bytes = b"") -> bytes:
    """What begins like a list and is none: with these parts in what is signed."""
    return tlv(SEQUENCE, tlv(SEQUENCE, b"".join(parts)) + after)


@pytest.mark.parametrize(
    ("der", "unread"),
    [
        pytest.param(by_hand(tlv(TEXT, bytes(4096))), False, id="as long as may be"),
        pytest.param(by_hand(tlv(TEXT, bytes(4097))), True, id="one byte longer"),
        pytest.param(by_hand(*[SHORT] * 6, OVER), True, id="the seventh"),
        pytest.param(by_hand(*[SHORT] * 7, OVER), False, id="an eighth, which no list has"),
        pytest.param(by_hand(SHORT, after=OVER), False, id="behind what is signed"),
        pytest.param(by_hand(tlv(TEXT, bytes(127)), OVER), True, id="behind one of 127 bytes"),
        pytest.param(by_hand(tlv(TEXT, bytes(128)), OVER), True, id="behind one of 128 bytes"),
        pytest.param(by_hand(tlv(TEXT, bytes(256)), OVER), True, id="behind one of 256 bytes"),
        pytest.param(by_hand(tlv(TEXT, bytes(70_000))), True, id="a length of three octets"),
        pytest.param(by_hand(b"\x0c\x80", OVER), True, id="behind one without a length"),
        pytest.param(by_hand(tlv(SEQUENCE, bytes(5000))), True, id="a sequence before the dates"),
        pytest.param(
            by_hand(tlv(DATE, b"\0"), tlv(SEQUENCE, bytes(5000))), False, id="the entries"
        ),
        pytest.param(
            by_hand(tlv(DATE_2050, b"\0"), tlv(SEQUENCE, bytes(5000))),
            False,
            id="the entries of a list of after 2050",
        ),
        pytest.param(
            by_hand(tlv(0x19, b"\0"), tlv(SEQUENCE, bytes(5000))), True, id="after no date"
        ),
        pytest.param(by_hand(tlv(DATE, b"\0"), OVER), True, id="no sequence after the dates"),
        pytest.param(b"\x30", False, id="one byte"),
        pytest.param(b"\x30\x02\x30", False, id="cut before what is signed"),
        pytest.param(b"\x30\x03\x30\x01\x0c", False, id="cut in a part"),
        pytest.param(b"\x30" + b"\xff" * 300, True, id="lengths of 127 octets"),
    ],
)
def test_each_parts_length_is_looked_at_before_any_is_read(der: bytes, unread: bool) -> None:
    told = "a part besides its entries" if unread else "it does not parse"
    with pytest.raises(AttestationError, match=told) as caught:
        load_crl(der)
    assert caught.value.reasons == ("crl_invalid",)


def test_a_name_that_the_library_warns_of_warns_nobody_and_is_no_error() -> None:
    issuer = Issuer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        country = x509.NameAttribute(NameOID.COUNTRY_NAME, "USA", _validate=False)
        issuer.name = x509.Name([country])
        issuer.certificate = load_certificate(issuer.certify(1))
        raw, other = issuer.list(4), load_certificate(issuer.certify(5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_crl(raw, issuer.certificate, [other], NOW) == NOW + DAY


def test_a_list_of_ten_thousand_entries_is_read(issuer: Issuer) -> None:
    raw = issuer.list(*range(6, 10_006))
    assert len(raw) > 2**17
    assert check(issuer, raw) == NOW + DAY
    assert refused(lambda: check(issuer, raw, serial=10_005)) == "revoked"


def test_a_list_of_another_issuer_is_refused(issuer: Issuer) -> None:
    other = Issuer("another")
    assert refused(lambda: check(issuer, other.list())) == "crl_invalid"


def test_a_list_by_another_key_of_the_same_name_is_refused(issuer: Issuer) -> None:
    assert refused(lambda: check(issuer, Issuer().list())) == "crl_invalid"
    other = ed25519.Ed25519PrivateKey.generate()
    assert refused(lambda: check(issuer, issuer.list(key=other))) == "crl_invalid"


def test_a_list_whose_bytes_changed_is_refused(issuer: Issuer) -> None:
    raw = bytearray(issuer.list(4))
    raw[raw.index(b"\x02\x01\x04") + 2] = 3
    assert refused(lambda: check(issuer, bytes(raw))) == "crl_invalid"


def test_an_issuer_that_may_not_sign_lists_is_refused() -> None:
    able, unable = Issuer(crl_sign=True), Issuer(crl_sign=False)
    assert check(able, able.list()) == NOW + DAY
    assert refused(lambda: check(unable, unable.list())) == "crl_invalid"


@pytest.mark.parametrize(
    ("now", "code"),
    [(NOW - DAY - CLOCK_SKEW_S - 1, "crl_not_yet_valid"), (NOW + DAY, "crl_expired")],
    ids=["early", "late"],
)
def test_a_list_outside_its_time_is_refused(issuer: Issuer, now: int, code: str) -> None:
    raw = issuer.list()
    assert refused(lambda: check(issuer, raw, now=now)) == code
    inside = now + 1 if code == "crl_not_yet_valid" else now - 1
    assert check(issuer, raw, now=inside) == NOW + DAY


def test_a_refusal_says_by_how_many_seconds_a_list_is_not_of_now(issuer: Issuer) -> None:
    raw = issuer.list()
    with pytest.raises(AttestationError) as ended:
        check(issuer, raw, now=NOW + DAY)
    end = stamp(NOW + DAY)
    assert ended.value.message == (
        f"revocation list: found next update {end}, expected one after {end}"
    )
    early = NOW - DAY - CLOCK_SKEW_S - 1
    with pytest.raises(AttestationError) as begun:
        check(issuer, raw, now=early)
    assert begun.value.message == (
        f"revocation list: found update {stamp(NOW - DAY)}, expected one by {stamp(early)}"
    )


def test_a_list_of_changes_or_for_others_is_not_the_whole(issuer: Issuer) -> None:
    partial = (
        x509.DeltaCRLIndicator(1),
        x509.IssuingDistributionPoint(None, None, False, False, None, True, False),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\5\0"),
    )
    for extension in partial:
        raw = issuer.list(extension=extension)
        assert refused(lambda raw=raw: check(issuer, raw)) == "crl_invalid"  # type: ignore[misc]
    numbered = issuer.list(extension=x509.CRLNumber(3), critical=False)
    assert check(issuer, numbered) == NOW + DAY


@pytest.fixture(scope="module")
def amd() -> Amd:
    return Amd("Genoa")


def snp(amd: Amd, endorser: str = "vcek", crl: bytes | None = None, **lies: Any) -> set[str]:
    """Reason codes of a simulated AMD's evidence with this list at hand."""
    chip = amd.chip() if endorser == "vcek" else amd.provider()
    roles = amd.collateral(endorser, crl=amd.crl(**lies) if crl is None else crl)
    found = SCHEME.examine(amd.question(chip.evidence(), roles))
    assert found.facts.revocation is (not found.reasons)
    return {reason.code for reason in found.reasons}


@pytest.mark.parametrize(
    ("endorser", "serial"),
    [("vcek", ARK_SERIAL), ("vcek", ASK_SERIAL), ("vcek", LEAF_SERIAL),
     ("vlek", ASVK_SERIAL), ("vlek", LEAF_SERIAL)],
)  # fmt: skip
def test_snp_evidence_under_a_revoked_certificate_is_refused(
    amd: Amd, endorser: str, serial: int
) -> None:
    assert snp(amd, endorser, revoked=[serial]) == {"revoked"}


def test_snp_evidence_is_not_revoked_by_the_other_intermediates_number(amd: Amd) -> None:
    assert snp(amd, "vcek", revoked=[ASVK_SERIAL]) == set()
    assert snp(amd, "vlek", revoked=[ASK_SERIAL]) == set()


@pytest.mark.parametrize(
    ("lies", "code"),
    [
        ({"end": -1}, "crl_expired"),
        ({"start": CLOCK_SKEW_S + 1}, "crl_not_yet_valid"),
        ({"signer": "ask"}, "crl_invalid"),
        ({"issuer": "SEV-Genoa", "signer": "ask"}, "crl_invalid"),
        ({"issuer": "ARK-Milan"}, "crl_invalid"),
        ({"salt": 32}, "crl_invalid"),
        ({"crl": b"not a list"}, "crl_invalid"),
        ({"extensions": [(x509.DeltaCRLIndicator(1), True)]}, "crl_invalid"),
    ],
    ids=["expired", "early", "signer", "issuer", "product", "salt", "text", "delta"],
)
def test_snp_evidence_with_a_list_that_does_not_hold_is_refused(
    amd: Amd, lies: dict[str, Any], code: str
) -> None:
    if "signer" in lies:
        lies = {**lies, "signer": amd.ask_key}
    assert snp(amd, **lies) == {code}


def test_the_verdict_ends_with_the_list(amd: Amd) -> None:
    roles = amd.collateral(crl=amd.crl(end=3))
    assert SCHEME.examine(amd.question(amd.chip().evidence(), roles)).not_after == NOW + 3


def test_a_list_without_a_chain_is_a_step_that_did_not_run(amd: Amd) -> None:
    roles = {"ca": amd.ask, "crl": amd.crl()}
    found = SCHEME.examine(amd.question(amd.chip().evidence(), roles))
    assert [c.ok for c in found.checks if c.step == "snp 5 revocation"] == [None]
    assert not found.facts.revocation


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_arbitrary_lists_raise_only_our_error(data: st.DataObject) -> None:
    amd = Amd("Genoa")
    raw = bytearray(amd.crl([1, 2, 3]))
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    certificate = load_certificate(amd.root)
    with contextlib.suppress(AttestationError):
        check_crl(bytes(raw), certificate, [certificate], NOW)

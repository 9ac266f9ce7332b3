"""`tpm2-quote` evidence: one quote a bank, the registers beside them, the key, the event log.

Roles, all bytes as tools write them:

    quote_msg, quote_sig             TPMS_ATTEST and its signature (TPMT_SIGNATURE or plain)
    quote_BANK, sig_BANK             the same for one bank: sha1, sha256, sha384, sha512
    pcrs                             register values, see `tpm_registers`
    ak_public                        TPMT_PUBLIC or TPM2B_PUBLIC of the attestation key
    ak_cert                          its certificate, DER
    ak_chain                         certificates above it, its issuer's first, DER or PEM
    event_log                        TCG event log
    attestation_pb                   go-tpm-tools' message of all of these
    evidence                         {"ak_public", "tpm_quote": {"message", "signature", "pcrs"}}

What two of them say must be the same bytes: which one counts must never be a parser's choice.
Register values of a bank that no quote covers are dropped: tools list every bank of a TPM, whatever
was quoted, and nothing vouches for the others. Parse only.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from attestation.members import Members
from wire.canonical import parse_strict
from wire.errors import MalformedError

from .pem import certificate, certificates
from .tcg_event_log import EventLog, parse_event_log
from .tpm_attestation import Attestation, parse_attestation
from .tpm_registers import checked_registers, listed_registers, parse_registers
from .tpm_structures import (
    HASHES,
    TPM2B_MAX,
    Public,
    Quote,
    Signature,
    parse_any_signature,
    parse_public_area,
    parse_quote,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

BANKS: Final = tuple(HASHES.values())
EVIDENCE_JSON_MAX: Final = 32 * 1024
ROLES: Final = (
    "quote_msg", "quote_sig", *(f"quote_{bank}" for bank in BANKS),
    *(f"sig_{bank}" for bank in BANKS), "pcrs", "ak_public", "ak_cert", "ak_chain",
    "event_log", "attestation_pb", "evidence",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SignedQuote:
    """A quote, its signature, and the values of the registers it says it covers."""

    quote: Quote
    signature: Signature
    registers: Mapping[str, Mapping[int, bytes]]


@dataclass(frozen=True, slots=True)
class TpmQuotes:
    """A parsed, unverified body.

    Attributes:
        quotes: at least one, over distinct banks.
        ak: the attestation key's public area; None if the evidence has none.
        stated_key: SubjectPublicKeyInfo that the evidence states; b"" for none. Never trusted.
        ak_cert: DER of the attestation key's certificate; b"" for none.
        intermediates: DER of certificates above it; never anchors.
        event_log: what was measured; None if the evidence has none.
    """

    quotes: tuple[SignedQuote, ...]
    ak: Public | None
    stated_key: bytes
    ak_cert: bytes
    intermediates: tuple[bytes, ...]
    event_log: EventLog | None

    def registers(self, bank: str) -> Mapping[int, bytes]:
        """The registers of one bank that a quote covers; empty if none does."""
        for signed in self.quotes:
            if bank in signed.registers:
                return signed.registers[bank]
        return MappingProxyType({})


class Pieces:
    """Byte strings by name, each said once or, if twice, the same."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[str, bytes] = {}

    def put(self, name: str, data: bytes) -> None:
        """Add a piece; nothing for b""."""
        if data and self._found.setdefault(name, data) != data:
            raise MalformedError(f"tpm2-quote: two roles say different things about {name}")

    def get(self, name: str) -> bytes:
        """The piece, or b""."""
        return self._found.get(name, b"")


def parse_tpm_quotes(roles: Mapping[str, bytes]) -> TpmQuotes:
    """The quotes and what stands beside them.

    Raises:
        MalformedError: no quote, a quote without registers or signature, roles that contradict
            each other, or any structure that does not parse.
    """
    pieces = Pieces()
    registers: dict[str, Mapping[int, bytes]] = {}
    if "pcrs" in roles:
        registers.update(parse_registers(roles["pcrs"]))
    message = parse_attestation(roles["attestation_pb"]) if "attestation_pb" in roles else None
    if message is not None:
        _from_message(message, pieces, registers)
    for name in ("ak_public", "ak_cert", "event_log"):
        data = roles.get(name, b"")
        pieces.put(name, certificate(data, name) if data and name == "ak_cert" else data)
    for name in ("msg", *BANKS):
        pieces.put(f"quote_{name}", roles.get(f"quote_{name}", b""))
        pieces.put(f"sig_{name}", roles.get("quote_sig" if name == "msg" else f"sig_{name}", b""))
    listed: object = None
    stated = b""
    if "evidence" in roles:
        stated, listed = _from_json(roles["evidence"], pieces)
    public = pieces.get("ak_public")
    ak = parse_public_area(public) if public else None
    log = pieces.get("event_log")
    return TpmQuotes(
        quotes=_quotes(pieces, registers, listed, ak),
        ak=ak,
        stated_key=stated,
        ak_cert=pieces.get("ak_cert"),
        intermediates=_intermediates(roles.get("ak_chain", b""), message),
        event_log=parse_event_log(log) if log else None,
    )


def _intermediates(chain: bytes, message: Attestation | None) -> tuple[bytes, ...]:
    sent = () if message is None else message.intermediates
    found = certificates(chain, "ak_chain") if chain else sent
    if sent and found != sent:
        raise MalformedError("tpm2-quote: two roles give different chains")
    return found


def _from_message(
    message: Attestation, pieces: Pieces, registers: dict[str, Mapping[int, bytes]]
) -> None:
    pieces.put("ak_public", message.ak_public)
    pieces.put("ak_cert", message.ak_cert)
    pieces.put("event_log", message.event_log)
    for member in message.quotes:
        pieces.put(f"quote_{member.bank}", member.quote)
        pieces.put(f"sig_{member.bank}", member.signature)
        found = checked_registers(member.bank, member.registers)
        if registers.setdefault(member.bank, found) != found:
            raise MalformedError("tpm2-quote: two roles give different registers")


def _from_json(raw: bytes, pieces: Pieces) -> tuple[bytes, object]:
    """The stated key and the listed registers of the `evidence` role."""
    top = Members(
        parse_strict(raw, max_bytes=EVIDENCE_JSON_MAX),
        "evidence",
        required=("tpm_quote",),
        optional=("ak_public", "svn"),
    )
    inner = Members(
        top.value("tpm_quote"), "evidence.tpm_quote", required=("message", "signature", "pcrs")
    )
    pieces.put("quote_msg", _base64(inner, "message"))
    pieces.put("sig_msg", _base64(inner, "signature"))
    stated = _base64(top, "ak_public") if "ak_public" in top else b""
    return stated, inner.value("pcrs")


def _quotes(
    pieces: Pieces, registers: Mapping[str, Mapping[int, bytes]], listed: object, ak: Public | None
) -> tuple[SignedQuote, ...]:
    hash_name = ak.scheme_hash if ak is not None and ak.scheme_hash else "sha256"
    found: list[SignedQuote] = []
    for name in ("msg", *BANKS):
        raw, sig = pieces.get(f"quote_{name}"), pieces.get(f"sig_{name}")
        if not raw and not sig:
            continue
        quote = parse_quote(raw)
        banks = {selection.bank for selection in quote.covered}
        if name != "msg" and banks != {name}:
            raise MalformedError(f"quote_{name}: found another bank in it, expected {name}")
        values = {bank: registers[bank] for bank in banks if bank in registers}
        if listed is not None and name == "msg":
            values = _listed(banks, listed, values)
        signature = parse_any_signature(sig, hash_name)
        found.append(SignedQuote(quote, signature, MappingProxyType(values)))
    if not found:
        raise MalformedError("tpm2-quote: found no quote, expected at least one")
    covered = [selection.bank for signed in found for selection in signed.quote.covered]
    if len(set(covered)) != len(covered):
        raise MalformedError("tpm2-quote: found a bank in two quotes, expected each in one")
    return tuple(found)


def _listed(
    banks: set[str], listed: object, values: Mapping[str, Mapping[int, bytes]]
) -> dict[str, Mapping[int, bytes]]:
    if len(banks) != 1:
        raise MalformedError("evidence.tpm_quote: found several banks, expected registers of one")
    bank = next(iter(banks))
    found = listed_registers(bank, listed)
    if values.get(bank, found) != found:
        raise MalformedError("tpm2-quote: two roles give different registers")
    return {bank: found}


def _base64(members: Members, key: str) -> bytes:
    value = members.value(key)
    if isinstance(value, str) and value and len(value) <= TPM2B_MAX * 2:
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            data = b""
        if data and base64.b64encode(data).decode("ascii") == value:  # one text for one value
            return data
    raise members.fail(key, "bytes in base64 with padding")

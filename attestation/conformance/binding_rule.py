"""The rule that says which claim of a sample carries which of the relying party's values.

It is a text. This grammar is understood, and anything else is refused, because a rule that is not
applied is a check that did not run:

    RULE   = CLAUSE {"; " CLAUSE} [";"]               every clause must hold
    CLAUSE = ["TEE "] FIELD ["[" LOW ":" HIGH "]"] " == " TERMS
    TERMS  = TERM {(" || " | " + ") TERM}             concatenation
    TERM   = HASH "(" TERMS ")"                       SHA-256, SHA-384 or SHA-512, in any case
           | "zeros(" COUNT ")" | "'" ASCII "'"       zero bytes; literal text
           | "DER SubjectPublicKeyInfo of the TLS certificate"   of tls_certificate_der_hex
           | NAME                                     an input in hex, given as NAME or NAME_hex,
                                                      or as either behind "expected_"

FIELD is a claim in hex, such as report_data, where fewer bytes than its 64 stand before zeros; LOW
or HIGH may be left out. People write the same in other ways, which are read too: "‖" or a
comma for "||", blanks or none around the signs, " and " for "; ", and a clause with its sides
exchanged. Of two names that could both be a claim, the left one is it, unless it is an input and
the right one is none. A value without any bytes holds nowhere, and neither do zeros that are called
a nonce, unless they are hashed. Of Azure samples four clauses more are read, in any place: what
their kinds always check.

Tokens are cut once, from left to right, and never read again: a rule is anybody's text.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import dropwhile
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestation.verify.x509 import load_certificate
from wire.errors import AttestationError, MalformedError
from wire.excerpt import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .index import Sample

INPUT_MAX: Final = 65_536  # hex digits; a certificate is the longest input
RULE_MAX: Final = 1024
DEPTH_MAX: Final = 4
EXPECTED: Final = "expected_"
TLS_INPUT: Final = "tls_certificate_der_hex"
PADDED: Final = {"report_data": 64}  # bytes of a field of fixed size, filled from the front
_TOKEN = re.compile(
    r"(?P<hash>(?i:SHA)[-_]?(?P<bits>256|384|512) {0,8}\()|zeros\((?P<zeros>\d{1,3})\)|"
    r"'(?P<text>[\x20-\x26\x28-\x7e]*)'|(?P<equal>==)|(?P<close>\))|(?P<join>\|\||\+|‖|,)|"
    r"(?P<end>;)|(?P<part>\[(?P<low>\d{0,4}):(?P<high>\d{0,4})\])|(?P<blank> +)|"
    r"(?P<tls>DER SubjectPublicKeyInfo of the TLS certificate)|(?P<name>[A-Za-z0-9_]+)"
)
_FIELD = re.compile(r"[a-z_][a-z0-9_]*")
_NONCES: Final = re.compile(r"nonce|challenge", re.IGNORECASE)
_TEE: Final = "TEE"
_AND: Final = "and"
_BUILT_IN: Final = (
    "report_data[0:32] == SHA-256(variable data)",
    "variable data names HCLAkPub",
    "HCLAkPub signs the TPM quote",
    "quote extraData carries the nonce",
)
_BUILT_IN_KINDS: Final = ("azure-vtpm-snp", "azure-vtpm-tdx")


@dataclass(frozen=True, slots=True)
class BindingRule:
    """One clause: a claim that must have a value.

    Attributes:
        field: claim name.
        part: which bytes of it; None for all.
        value: what they must be.
        terms: the values it names, each alone.
        nonces: those of them that are called so and stand in the field as they are. Zeros stand
            there too where nobody was answered.
    """

    field: str
    part: slice | None
    value: bytes
    terms: tuple[bytes, ...]
    nonces: tuple[bytes, ...] = ()

    def holds(self, claims: Mapping[str, Any]) -> bool:
        """Whether the claims satisfy the clause, and each value that it names is one."""
        if not all(self.terms) or not all(map(any, self.nonces)):
            return False
        found = claims.get(self.field)
        try:
            data = bytes.fromhex(found) if isinstance(found, str) else b""
        except ValueError:
            return False
        if self.part is not None:
            return bool(self.value) and data[self.part] == self.value
        size = PADDED.get(self.field, len(self.value))
        return bool(self.value) and data == self.value.ljust(size, b"\0")


def rule_of(sample: Sample) -> object:
    """The binding rule; None where there is none but what its kind checks itself."""
    text = sample.inputs.get("binding")
    if not isinstance(text, str) or len(text) > RULE_MAX or not _whole(text.strip(" ")):
        return text
    return text if _clauses(sample, text) else None


def inputs_of(sample: Sample) -> set[str]:
    """The inputs that the binding rule uses: also those of one that is not understood."""
    text = rule_of(sample)
    if not isinstance(text, str) or len(text) > RULE_MAX:
        return set()
    tokens = [token for clause in _clauses(sample, text) for token in _used(sample, clause)]
    named = {key_of(sample, token["name"]) for token in tokens if token["name"]}
    tls = {TLS_INPUT for token in tokens if token["tls"]}
    return tls | {key for key in named if key is not None}


def _clauses(sample: Sample, text: str) -> list[list[re.Match[str]]]:
    """The tokens of each clause but those that the sample's kind always checks.

    What is no token is left out, which `_whole` tells.
    """
    text = text.rstrip(" ")
    clauses = _separated(text)
    if len(clauses) > 1 and not clauses[-1] and text.endswith(";"):
        clauses.pop()
    if sample.kind not in _BUILT_IN_KINDS:
        return clauses
    built_in = [_words(_separated(one)[0]) for one in _BUILT_IN]
    return [clause for clause in clauses if _words(_untagged(clause)) not in built_in]


def _words(clause: list[re.Match[str]]) -> list[str]:
    """A clause without its blanks."""
    return [token[0].replace(" ", "") for token in clause]


def _separated(text: str) -> list[list[re.Match[str]]]:
    clauses: list[list[re.Match[str]]] = [[]]
    for token in _TOKEN.finditer(text):
        if token["end"] or token["name"] == _AND:
            clauses.append([])
        elif not token["blank"]:
            clauses[-1].append(token)
    return clauses


def _whole(text: str) -> bool:
    """Whether nothing stands between the tokens."""
    return sum(len(token[0]) for token in _TOKEN.finditer(text)) == len(text)


def _used(sample: Sample, clause: list[re.Match[str]]) -> list[re.Match[str]]:
    """The tokens of a clause that stand for values."""
    sides = _sides(sample, clause)
    if sides is not None:
        return sides[1]
    return list(dropwhile(lambda token: not token["equal"], clause))  # the sign stands for none


def _sides(
    sample: Sample, clause: list[re.Match[str]]
) -> tuple[list[re.Match[str]], list[re.Match[str]]] | None:
    """The tokens of the field and of the terms; None for no clause."""
    places = [place for place, token in enumerate(clause) if token["equal"]]
    if len(places) != 1:
        return None
    left, right = clause[: places[0]], clause[places[0] + 1 :]
    if not _is_field(left) or (_is_field(right) and _exchanged(sample, left, right)):
        left, right = right, left
    return (_untagged(left), right) if _is_field(left) and right else None


def _untagged(tokens: list[re.Match[str]]) -> list[re.Match[str]]:
    """A field without the word in front that says whose it is."""
    return tokens[1:] if tokens and (tokens[0]["name"] or "").upper() == _TEE else tokens


def _is_field(tokens: list[re.Match[str]]) -> bool:
    tokens = _untagged(tokens)
    if not tokens or tokens[0]["name"] is None or _FIELD.fullmatch(tokens[0]["name"]) is None:
        return False
    return len(tokens) == 1 or (len(tokens) == 2 and tokens[1]["part"] is not None)


def _exchanged(sample: Sample, left: list[re.Match[str]], right: list[re.Match[str]]) -> bool:
    """Whether, of two sides that could both be the field, the right one is it."""
    if len(left) > 1:
        return False
    if len(right) > 1:
        return True
    known = [key_of(sample, side[0]["name"]) is not None for side in (left, right)]
    return known == [True, False]


def data_of(sample: Sample, key: str) -> bytes:
    """An input in hex.

    Raises:
        MalformedError: it is none.
    """
    value = sample.inputs.get(key)
    try:
        if isinstance(value, str) and len(value) <= INPUT_MAX:
            return bytes.fromhex(bare(value))
    except ValueError:
        pass
    raise MalformedError(f"sample {sample.id}: expected hex as {key}")


def bare(text: str) -> str:
    """Hex without the mark that some write before it."""
    return text[2:] if text[:2] in {"0x", "0X"} else text


def key_of(sample: Sample, name: str) -> str | None:
    """The input that a rule means by a name; None if there is none but null."""
    keys = (f"{name}_hex", name, f"{EXPECTED}{name}_hex", EXPECTED + name)
    return next((key for key in keys if sample.inputs.get(key) is not None), None)


def binding_rules(sample: Sample, named: Mapping[str, bytes]) -> tuple[BindingRule, ...]:
    """The clauses a sample states; () where it states none beyond what its kind checks.

    Args:
        sample: the sample.
        named: further values by name, such as the digest of its GPU evidence.

    Raises:
        MalformedError: a rule that is not understood, or an input it names that is not there.
    """
    text = rule_of(sample)
    if text is None:
        return ()
    if not isinstance(text, str) or len(text) > RULE_MAX:
        raise MalformedError(f"sample {sample.id}: expected a binding rule of ≤ {RULE_MAX} bytes")
    text = text.strip(" ")
    if not _whole(text):
        raise _not_understood(sample, text)
    return tuple(_clause(sample, clause, named, text) for clause in _clauses(sample, text))


def _clause(
    sample: Sample, tokens: list[re.Match[str]], named: Mapping[str, bytes], text: str
) -> BindingRule:
    sides = _sides(sample, tokens)
    if sides is None:
        raise _not_understood(sample, text)
    (field, *parts), values = sides
    part = None
    if parts:
        part = slice(*(int(end) if end else None for end in parts[0].group("low", "high")))
    terms: list[tuple[str, bytes, int]] = []
    value, at = _terms(sample, values, named, terms, (0, 0))
    if at != len(values):
        raise _not_understood(sample, text)
    nonces = tuple(term for name, term, depth in terms if depth == 0 and _NONCES.search(name))
    return BindingRule(field["name"], part, value, tuple(term for _, term, _ in terms), nonces)


def _terms(
    sample: Sample,
    tokens: list[re.Match[str]],
    named: Mapping[str, bytes],
    terms: list[tuple[str, bytes, int]],
    place: tuple[int, int],
) -> tuple[bytes, int]:
    """The bytes of the terms from a place on, and where they end; named ones go to `terms`, each
    with its name and within how many hashes it stands.

    Args:
        place: number of the first token, and within how many hashes it stands.
    """
    at, depth = place
    joined = b""
    while True:
        if at >= len(tokens) or depth > DEPTH_MAX:
            raise _not_understood(sample, "".join(token[0] for token in tokens))
        token, at = tokens[at], at + 1
        if token["hash"]:
            inner, at = _terms(sample, tokens, named, terms, (at, depth + 1))
            if at >= len(tokens) or not tokens[at]["close"]:
                raise _not_understood(sample, "".join(token[0] for token in tokens))
            joined, at = joined + hashlib.new(f"sha{token['bits']}", inner).digest(), at + 1
        else:
            joined += _term(sample, token, named, terms, depth)
        if at >= len(tokens) or not tokens[at]["join"]:
            return joined, at
        at += 1


def _term(
    sample: Sample,
    token: re.Match[str],
    named: Mapping[str, bytes],
    terms: list[tuple[str, bytes, int]],
    depth: int,
) -> bytes:
    if token["zeros"]:
        return bytes(int(token["zeros"]))
    if token["text"] is not None:
        return token["text"].encode()
    if token["tls"]:
        return _spki(sample)
    if not token["name"]:
        raise _not_understood(sample, token[0])
    value = _named(sample, token["name"], named)
    terms.append((token["name"], value, depth))
    return value


def _not_understood(sample: Sample, text: str) -> MalformedError:
    return MalformedError(f"sample {sample.id}: binding rule {shown(text)} is not understood")


def _named(sample: Sample, name: str, named: Mapping[str, bytes]) -> bytes:
    key = key_of(sample, name)
    if key is not None:
        return data_of(sample, key)
    if name in named:
        return named[name]
    raise MalformedError(f"sample {sample.id}: its binding rule names no input {shown(name)}")


def _spki(sample: Sample) -> bytes:
    try:
        certificate = load_certificate(data_of(sample, TLS_INPUT))
    except AttestationError:
        raise MalformedError(f"sample {sample.id}: its TLS certificate does not parse") from None
    key = certificate.public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

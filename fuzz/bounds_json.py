"""Bounds of what is read as JSON, tokens and texts."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from simulators.gpu_tee import nvidia_of
from simulators.hcl import Paravisor
from simulators.intel import Intel
from simulators.nras import NrasService, sdk_token
from simulators.nvidia_device import listing
from simulators.tee import NOW, SoftwareTee
from simulators.tokens import Issuer
from simulators.tpm import TpmTee
from simulators.vtpm import NONCE, Vtpm, VtpmMaker

from attestation import collateral_key as keys
from attestation.collateral import entry, services, signed_json
from attestation.conformance import binding_rule, document, index
from attestation.formats import (
    container,
    detached_eat,
    ear,
    gpu_list,
    hcl_report,
    intel_collateral,
    intel_statements,
    jose,
    jwks,
    software,
    tpm,
    tpm_quote,
    tpm_registers,
)
from attestation.verify import credential
from fuzz.bound import Bound, json_shapes, padded, shaped, text
from fuzz.seeds import EAR_CLAIMS
from wire.errors import ConfigError
from wire.ids import b64u

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@cache
def _intel() -> Intel:
    return Intel()


def _edited(raw: bytes, **members: Any) -> bytes:
    return text({**json.loads(raw), **members})


def _tcb_info(**members: Any) -> bytes:
    return text({**_intel().tcb_info, **members})


def _levels(count: int) -> Iterable[bytes]:
    yield _tcb_info(tcbLevels=_intel().tcb_info["tcbLevels"][:1] * count)


def _modules(count: int) -> Iterable[bytes]:
    one = _intel().tcb_info["tdxModuleIdentities"][0]
    yield _tcb_info(tdxModuleIdentities=[{**one, "id": f"TDX_{n % 256:02X}"} for n in range(count)])


def _advisories(count: int) -> Iterable[bytes]:
    level = _intel().tcb_info["tcbLevels"][0]
    listed = [f"INTEL-SA-{n:05}" for n in range(count)]
    yield _tcb_info(tcbLevels=[{**level, "advisoryIDs": listed}])


def _crls(count: int) -> Iterable[bytes]:
    yield _edited(_intel().collateral(), pck_crl="00" * count)


def _devices(count: int) -> Iterable[bytes]:
    service = NrasService(1)
    tokens = service.device_tokens(NONCE)
    one = next(iter(tokens.values()))
    many = {f"GPU-{n}": one for n in range(count)}
    yield text([["JWT", service.overall_token(NONCE, many)], many])


def _bundles(count: int) -> Iterable[bytes]:
    raw = NrasService().bundle(NONCE)
    yield sdk_token({f"V{n}_CLAIMS": raw for n in range(count)})


def _wrappers(count: int) -> Iterable[bytes]:
    obj = json.loads(sdk_token({"REMOTE_GPU_CLAIMS": NrasService().bundle(NONCE)}))
    rest = obj[0][1].partition(".")[2]
    for wrapper in (f"{obj[0][1]}{'A' * count}"[:count], f"{'A' * (count - len(rest) - 1)}.{rest}"):
        yield text([["JWT", wrapper], obj[1]])


def _key_set(key: Callable[[int], dict[str, Any]]) -> Callable[[int], Iterable[bytes]]:
    return lambda count: [text({"keys": [key(count)]})]


def _keys_of(count: int) -> Iterable[bytes]:
    yield text({"keys": [{"kty": "x"}] * count})
    yield text({"keys": [json.loads(Issuer("EdDSA").jwks())["keys"][0]] * count})


def _pem(count: int) -> Iterable[bytes]:
    head = b"-----BEGIN PUBLIC KEY-----\n"
    yield head.ljust(count, b"A")
    yield (head * count)[:count]


def _token(header: dict[str, Any] | None = None, **parts: bytes) -> bytes:
    head = b64u(parts.get("head", text({"alg": "ES256", **(header or {})})))
    body, sig = b64u(parts.get("body", b"{}")), b64u(parts.get("sig", bytes(64)))
    return f"{head}.{body}.{sig}".encode()


def _tokens(count: int) -> Iterable[bytes]:
    room = (count - len(_token())) * 3 // 4
    yield _token(body=b"{}".ljust(room))
    for shape in json_shapes():
        yield _token(body=b'{"a":' + shape(room - 6) + b"}")
    yield b"." * count
    yield b"A" * count
    yield (b"A." * count)[:count]


def _nested(count: int) -> Iterable[bytes]:
    inner = count - 1
    yield _token(body=b'{"a":' + b"[" * inner + b"]" * inner + b"}")
    yield _token(body=b'{"a":' * count + b"0" + b"}" * count)


def _results(count: int) -> Iterable[Any]:
    one = next(iter(EAR_CLAIMS["submods"].values()))
    yield {**EAR_CLAIMS, "submods": {f"s{n}": one for n in range(count)}}


def _developers(count: int) -> Iterable[Any]:
    verifier = {**EAR_CLAIMS["ear.verifier-id"], "developer": "d" * count}
    yield {**EAR_CLAIMS, "ear.verifier-id": verifier}


def _hcl(variable: bytes | None = None) -> bytes:
    return Paravisor(lambda report_data: report_data.ljust(1184, b"\0")).hcl_report(
        variable=variable
    )


@cache
def _variable() -> bytes:
    return Paravisor(lambda report_data: report_data.ljust(1184, b"\0")).variable_data()


def _variables(count: int) -> Iterable[bytes]:
    for made in shaped(_variable)(count):
        yield _hcl(made)


def _hcl_keys(count: int) -> Iterable[bytes]:
    found = json.loads(_variable())
    more = [{**found["keys"][0], "kid": f"k{n}"} for n in range(count - len(found["keys"]))]
    yield _hcl(text({**found, "keys": [*found["keys"], *more]}))


def _exponents(count: int) -> Iterable[bytes]:
    found = json.loads(_variable())
    keys_of = [{**key, "e": b64u(b"\1" * count)} for key in found["keys"]]
    yield _hcl(text({**found, "keys": keys_of}))


@cache
def _entry() -> dict[str, Any]:
    return dict(json.loads(listing([nvidia_of(NOW).gpu()], NONCE))[0])


def _entries(count: int) -> Iterable[bytes]:
    yield text([_entry()] * count)
    hexed = {
        "attestationReportHexStr": base64.b64decode(_entry()["evidence"]).hex(),
        "certChainBase64Encoded": _entry()["certificate"],
    }
    yield text([hexed] * count)


def _marks(count: int) -> Iterable[bytes]:
    """Commas in a text count too: nothing is parsed before."""
    device = _entry() | {"driver_version": "", "vbios_version": ""}
    more = count - sum(text([device]).count(mark) for mark in (b",", b"[", b"{"))
    yield text(
        [device | {"driver_version": "," * (more // 2), "vbios_version": "," * -(-more // 2)}]
    )
    yield text([0] * count)
    yield text([[]] * (count // 2))


def _container(count: int) -> Iterable[bytes]:
    yield text({"report": b64u(bytes(count)), "parts": SoftwareTee().parts})


def _statements(count: int) -> Iterable[bytes]:
    yield software.encode_body(b" " * count, bytes(64))
    yield software.encode_body(b"[" * count, bytes(64))


@cache
def _tpm_body() -> bytes:
    tee = TpmTee()
    return bytes(tee.evidence(tee.binding()).body)


def _endorsement(count: int) -> Iterable[bytes]:
    yield _edited(_tpm_body(), chain=[b64u(bytes(count))])


def _chain(count: int) -> Iterable[bytes]:
    yield _edited(_tpm_body(), chain=["AAAA"] * count)


@cache
def _quoted() -> bytes:
    tpm_of = Vtpm(VtpmMaker())
    message, signature = tpm_of.quote(NONCE)
    quoted = {
        "message": base64.b64encode(message).decode(),
        "signature": base64.b64encode(signature).decode(),
        "pcrs": ["00" * 32] * 24,
    }
    return text({"tpm_quote": quoted})


def _credential(**parts: int) -> dict[str, str]:
    sizes = {"blob": 1, "secret": 1, "ak": 1, "ek": 1, **parts}
    return {name: b64u(bytes(size)) for name, size in sizes.items()}


def _urls(count: int) -> Iterable[Any]:
    yield {"nvidia_ocsp": "https://ocsp.example/".ljust(count, "x")}
    yield {"pccs": "https://pccs.example/".ljust(count, "x")}
    yield {"amd_kds": "https://" + "a." * (count // 2)}


def _issuers(count: int) -> Iterable[Any]:
    yield {"jwks": {f"i{n}": "https://a.example/k" for n in range(count)}}


def _tails(count: int) -> Iterable[bytes]:
    body = b'{"tcbInfo":{},"signature":"' + b"00" * 64 + b'"}'
    yield body.ljust(len(body) + count)
    yield b'{"tcbInfo":{}' + b" " * count + body[13:]
    yield b'{"tcbInfo":{}' + b',"signature":"' * count


def _pieces(count: int) -> Iterable[Any]:
    yield entry.Piece(b"{}", "x" * count)


def _sample(**inputs: Any) -> index.Sample:
    vector = {
        "id": "a", "kind": "intel-tdx-quote", "files": {"quote": "a"}, "inputs": inputs,
        "expected": {"authentic": True, "strict": None},
    }  # fmt: skip
    return index.parse_index(
        text({"schema": "attestation-vectors/1", "vectors": [vector]})
    ).samples[0]


def _hexes(count: int) -> Iterable[Any]:
    yield _sample(binding="report_data == key", key_hex="0" * (count + count % 2))


def _rules(count: int) -> Iterable[Any]:
    tail = " || zeros(1)"
    short = "report_data == key"
    rule = short + tail * ((count - len(short)) // len(tail))
    yield _sample(binding=rule + _filler(count - len(rule)), key_hex="00")
    yield _sample(binding="SHA256(" * (count // 7), key_hex="00")
    yield _sample(binding="; " * (count // 2), key_hex="00")


def _filler(count: int) -> str:
    """A term of a rule of so many characters, at least six; none for none."""
    return "" if count < 6 else " || '" + "x" * (count - 6) + "'"


def _hashes(count: int) -> Iterable[Any]:
    rule = "report_data == " + "SHA-256(" * count + "key" + ")" * count
    yield _sample(binding=rule, key_hex="00")


def _levels_of_claims(count: int) -> Iterable[Any]:
    yield json.loads("[" * count + "]" * count)
    yield json.loads('{"a":' * count + "1" + "}" * count)


def _ruled(sample: Any) -> None:
    binding_rule.binding_rules(sample, {})


JSON: Final = (
    Bound(container, "ROLE_MAX", lambda raw: container.parse_container(raw, ("report",), ()),
          _container, exact=False),
    Bound(intel_collateral, "COLLATERAL_MAX",
          lambda raw: intel_collateral.parse_collateral({"collateral": raw}),
          shaped(lambda: _intel().collateral())),
    Bound(intel_collateral, "CRL_MAX",
          lambda raw: intel_collateral.parse_collateral({"collateral": raw}), _crls),
    Bound(intel_statements, "SIGNED_MAX", intel_statements.parse_tcb_info, shaped(_tcb_info)),
    Bound(intel_statements, "LEVELS_MAX", intel_statements.parse_tcb_info, _levels),
    Bound(intel_statements, "MODULES_MAX", intel_statements.parse_tcb_info, _modules),
    Bound(intel_statements, "ADVISORIES_MAX", intel_statements.parse_tcb_info, _advisories),
    Bound(detached_eat, "BUNDLE_MAX", detached_eat.parse_bundle,
          shaped(lambda: NrasService().bundle())),
    Bound(detached_eat, "DEVICES_MAX", detached_eat.parse_bundle, _devices),
    Bound(detached_eat, "BUNDLES_MAX", detached_eat.parse_bundle, _bundles),
    Bound(detached_eat, "WRAPPER_MAX", detached_eat.parse_bundle, _wrappers, exact=False),
    Bound(jwks, "JWKS_MAX", jwks.parse_keys, shaped(lambda: Issuer().jwks())),
    Bound(jwks, "KEYS_MAX", jwks.parse_keys, _keys_of),
    Bound(jwks, "X5C_MAX", jwks.parse_keys, _key_set(lambda n: {"kty": "x", "x5c": ["AAAA"] * n})),
    Bound(jwks, "CERT_MAX", jwks.parse_keys, exact=False, make=_key_set(
        lambda n: {"kty": "x", "x5c": [base64.b64encode(bytes(n)).decode()]})),
    Bound(jwks, "PEM_MAX", jwks.parse_keys, _pem),
    Bound(jwks, "RSA_MAX", jwks.parse_keys, exact=False, make=_key_set(
        lambda n: {"kty": "RSA", "n": b64u(b"\1" * n), "e": "AQAB"})),
    Bound(jose, "TOKEN_MAX", jose.parse_token, _tokens, exact=False),
    Bound(jose, "HEADER_MAX", jose.parse_token, exact=False, make=lambda n: [
        _token(head=b'{"alg":"ES256"}'.ljust(n * 3 // 4)),
        *(_token(head=b'{"a":' + shape(n * 3 // 4 - 6) + b"}") for shape in json_shapes())]),
    Bound(jose, "SIGNATURE_MAX", jose.parse_token, lambda n: [_token(sig=bytes(n))], exact=False),
    Bound(jose, "DEPTH_MAX", jose.parse_token, _nested),
    Bound(jose, "KID_MAX", jose.parse_token, lambda n: [_token({"kid": "k" * n})]),
    Bound(jose, "ALG_MAX", jose.parse_token, lambda n: [_token({"alg": "A" * n})]),
    Bound(ear, "SUBMODS_MAX", ear.parse_result, _results),
    Bound(ear, "TEXT_MAX", ear.parse_result, _developers),
    Bound(hcl_report, "REPORT_MAX", hcl_report.parse_hcl_report, padded(_hcl, b"\0")),
    Bound(hcl_report, "VARIABLE_MAX", hcl_report.parse_hcl_report, _variables),
    Bound(hcl_report, "KEYS_MAX", hcl_report.parse_hcl_report, _hcl_keys),
    Bound(hcl_report, "EXPONENT_MAX", hcl_report.parse_hcl_report, _exponents),
    Bound(gpu_list, "LIST_MAX", gpu_list.parse_list, shaped(lambda: text([_entry()]))),
    Bound(gpu_list, "ENTRIES_MAX", gpu_list.parse_list, _entries),
    Bound(gpu_list, "LIST_ITEMS_MAX", gpu_list.parse_list, _marks),
    Bound(software, "STATEMENT_MAX", software.parse_body, _statements, exact=False),
    Bound(tpm, "CERT_MAX", tpm.parse_body, _endorsement),
    Bound(tpm, "CHAIN_MAX", tpm.parse_body, _chain),
    Bound(tpm_quote, "EVIDENCE_JSON_MAX",
          lambda raw: tpm_quote.parse_tpm_quotes({"evidence": raw}), shaped(_quoted)),
    Bound(tpm_registers, "REGISTERS_JSON_MAX", tpm_registers.parse_registers,
          shaped(lambda: text({"sha256": {"0": "00" * 32}}))),
    Bound(credential, "CREDENTIAL_PART_MAX", credential.Credential.from_json,
          lambda n: [_credential(blob=n), _credential(secret=n)]),
    Bound(credential, "NAME_LEN_MAX", credential.Credential.from_json,
          lambda n: [_credential(ak=n), _credential(ek=n)]),
    Bound(services, "URL_MAX", services.parse_services, _urls, errors=(ConfigError,)),
    Bound(services, "ISSUERS_MAX", services.parse_services, _issuers, errors=(ConfigError,)),
    Bound(signed_json, "_TAIL_MAX",
          lambda raw: signed_json.parse_statement(raw, "tcbInfo", 256 * 1024), _tails, exact=False),
    Bound(entry, "CHAIN_MAX",
          lambda piece: entry.check_size(keys.tcb_info("tdx", bytes(6)), piece), _pieces),
    Bound(binding_rule, "INPUT_MAX", _ruled, _hexes),
    Bound(binding_rule, "RULE_MAX", _ruled, _rules),
    Bound(binding_rule, "DEPTH_MAX", _ruled, _hashes),
    Bound(document, "DEPTH_MAX", lambda value: document.check(value, "claims"), _levels_of_claims),
)  # fmt: skip

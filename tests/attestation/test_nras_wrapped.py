"""The token of NVIDIA's Python SDK: bundles under the names of verifiers, in a wrapper of nobody's.

Each test changes one fact of an honest token over GPUs and switches.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from simulators.nras import LIFE_S, NOW, NrasService, gpu_claims, sdk_token, switch_claims
from simulators.tokens import Issuer, compact, unsigned

from attestation.anchors import NONE
from attestation.examined import Examined, Expected, Question
from attestation.formats.detached_eat import (
    BUNDLES_MAX,
    DEVICES_MAX,
    WRAPPER_MAX,
    parse_bundle,
)
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes.nras import SCHEME, examine
from wire.errors import MalformedError, PolicyError

NONCE = bytes(range(32))
GPUS, SWITCHES = "REMOTE_GPU_CLAIMS", "REMOTE_SWITCH_CLAIMS"


@pytest.fixture
def gpus() -> NrasService:
    return NrasService(devices=2)


@pytest.fixture
def switches(gpus: NrasService) -> NrasService:
    service = NrasService()
    service.issuer = gpus.issuer
    service.devices = {f"SWITCH-{n}": switch_claims(n) for n in range(2)}
    return service


def ask(service: NrasService, raw: bytes, **changes: Any) -> Examined:
    facts = {"anchors": NONE, "now": NOW + 1, "expected": Expected(nonce=NONCE), **changes}
    return examine(Question(evidence={"eat": raw}, collateral={"jwks": service.jwks()}, **facts))


def codes(examined: Examined) -> list[str]:
    assert examined.authentic is False
    assert examined.bound is False
    return [reason.code for reason in examined.reasons]


def judge(raw: bytes, **document: Any) -> list[str]:
    required, optional = SCHEME.rule_keys
    members = Members(document, "rule", required=required, optional=optional, error=PolicyError)
    ledger = Ledger()
    SCHEME.judge(ledger, parse_bundle(raw), SCHEME.rule(members), NOW)
    return [reason.code for reason in ledger.reasons]


def both(gpus: NrasService, switches: NrasService) -> dict[str, bytes]:
    return {GPUS: gpus.bundle(NONCE), SWITCHES: switches.bundle(NONCE)}


def test_a_wrapped_bundle_is_as_authentic_as_the_same_alone(gpus: NrasService) -> None:
    bundle = gpus.bundle(NONCE)
    alone, wrapped = ask(gpus, bundle), ask(gpus, sdk_token({GPUS: bundle}))
    assert wrapped.authentic is True
    assert wrapped.bound is True
    assert wrapped.not_after == NOW + LIFE_S
    assert wrapped.identities == alone.identities
    stated = dict(wrapped.claims)
    assert stated.pop("wrapper") == {"alg": "HS256", "iss": "NV-Attestation-SDK"}
    assert stated == alone.claims
    assert judge(sdk_token({GPUS: bundle}), count=2) == []


def test_every_device_of_every_bundle_is_examined_and_counts(
    gpus: NrasService, switches: NrasService
) -> None:
    raw = sdk_token(both(gpus, switches))
    examined = ask(gpus, raw)
    assert examined.authentic is True
    assert sorted(examined.claims["devices"]) == ["GPU-0", "GPU-1", "SWITCH-0", "SWITCH-1"]
    assert len([one for one in examined.identities if one.startswith("ueid:")]) == 4
    assert judge(raw, count=4) == []
    assert judge(raw, count=2) == ["device_count_mismatch"]
    assert [need.role for need in SCHEME.needs({"eat": raw})] == ["jwks"]


def test_the_command_lines_wrapping_may_stand_around_it(gpus: NrasService) -> None:
    inner = json.loads(sdk_token({GPUS: gpus.bundle(NONCE)}))
    assert ask(gpus, json.dumps({"detached_eat": inner}).encode()).authentic is True


@pytest.mark.parametrize("forged", [GPUS, SWITCHES])
def test_one_forged_bundle_spoils_a_genuine_one(
    gpus: NrasService, switches: NrasService, forged: str
) -> None:
    genuine, honest = both(gpus, switches), gpus.issuer
    forger = gpus if forged == GPUS else switches
    forger.issuer = Issuer("ES384", honest.kid)
    genuine[forged] = forger.bundle(NONCE)
    gpus.issuer = honest
    assert codes(ask(gpus, sdk_token(genuine))) == ["signature_invalid"]


@pytest.mark.parametrize("where", ["overall", "device_claims"])
@pytest.mark.parametrize(
    ("claim", "value", "code"),
    [
        ("exp", NOW, "token_expired"),
        ("exp", None, "expiry_missing"),
        ("nbf", NOW + 9999, "token_not_yet_valid"),
        ("iss", "NV-Attestation-SDK", "issuer_mismatch"),
        ("eat_nonce", bytes(32).hex(), "nonce_mismatch"),
        ("eat_nonce", None, "nonce_mismatch"),
    ],
)
def test_one_wrong_claim_in_the_second_bundle_is_refused(
    gpus: NrasService, switches: NrasService, where: str, claim: str, value: object, code: str
) -> None:
    setattr(switches, where, {claim: value})
    assert codes(ask(gpus, sdk_token(both(gpus, switches)))) == [code]


def test_two_bundles_of_two_requests_are_refused_whatever_is_asked(
    gpus: NrasService, switches: NrasService
) -> None:
    raw = sdk_token({GPUS: gpus.bundle(NONCE), SWITCHES: switches.bundle(bytes(32))})
    for nonce in (NONCE, bytes(32), None):
        assert codes(ask(gpus, raw, expected=Expected(nonce=nonce))) == ["nonce_mismatch"]


@pytest.mark.parametrize("stated", [{"eat_nonce": NONCE.hex()}, {"eat_nonce": [NONCE.hex()]}])
def test_a_nonce_that_the_wrapper_states_is_nobodys(
    gpus: NrasService, stated: dict[str, Any]
) -> None:
    raw = sdk_token({GPUS: gpus.bundle(bytes(32))}, **stated)
    assert codes(ask(gpus, raw)) == ["nonce_mismatch"]


def test_a_result_that_the_wrapper_states_is_nobodys(gpus: NrasService) -> None:
    gpus.overall["x-nvidia-overall-att-result"] = False
    raw = sdk_token({GPUS: gpus.bundle(NONCE)}, **{"x-nvidia-overall-att-result": True})
    examined = ask(gpus, raw)
    assert examined.claims["x-nvidia-overall-att-result"] is False
    assert judge(raw) == ["overall_result_failed"]


@pytest.mark.parametrize("other", [GPUS, SWITCHES])
@pytest.mark.parametrize(
    ("claim", "value", "code"),
    [
        ("x-nvidia-overall-att-result", False, "overall_result_failed"),
        ("x-nvidia-ver", "9.0", "version_not_accepted"),
        ("iat", NOW - 90, "evidence_stale"),
        ("aud", "somebody", "audience_mismatch"),
    ],
)
def test_the_rule_holds_for_every_bundles_overall_token(
    gpus: NrasService, switches: NrasService, other: str, claim: str, value: object, code: str
) -> None:
    changed = gpus if other == GPUS else switches
    changed.overall[claim] = value
    assert judge(sdk_token(both(gpus, switches)), max_age_s=60) == [code]


def test_a_device_of_the_second_bundle_that_failed_is_refused(
    gpus: NrasService, switches: NrasService
) -> None:
    switches.devices["SWITCH-1"]["dbgstat"] = "enabled"
    assert judge(sdk_token(both(gpus, switches))) == ["debug_enabled"]


def test_two_devices_of_one_name_are_two(gpus: NrasService, switches: NrasService) -> None:
    switches.devices = {"GPU-1": switch_claims() | {"dbgstat": "enabled"}}
    raw = sdk_token(both(gpus, switches))
    assert sorted(ask(gpus, raw).claims["devices"]) == [
        "GPU-0", f"{GPUS}/GPU-1", f"{SWITCHES}/GPU-1",
    ]  # fmt: skip
    assert judge(raw, count=3) == ["debug_enabled"]


def test_a_device_in_two_bundles_is_repeated(gpus: NrasService) -> None:
    bundle = gpus.bundle(NONCE)
    raw = sdk_token({GPUS: bundle, "LOCAL_GPU_CLAIMS": bundle})
    assert judge(raw) == ["device_repeated"]


def test_a_device_left_out_of_one_bundle_is_missed(
    gpus: NrasService, switches: NrasService
) -> None:
    obj = json.loads(sdk_token(both(gpus, switches)))
    del obj[1][SWITCHES][1]["SWITCH-1"]
    examined = ask(gpus, json.dumps(obj).encode())
    assert codes(examined) == ["submods_digest_mismatch"]
    assert examined.claims["submods_digest_match"] is False


def test_a_bundle_without_devices_is_refused_beside_one_that_has_some(
    gpus: NrasService, switches: NrasService
) -> None:
    switches.devices.clear()
    raw = sdk_token(both(gpus, switches))
    assert codes(ask(gpus, raw)) == ["submods_digest_mismatch"]


def test_devices_exchanged_between_bundles_are_refused(
    gpus: NrasService, switches: NrasService
) -> None:
    obj = json.loads(sdk_token(both(gpus, switches)))
    obj[1][GPUS][1], obj[1][SWITCHES][1] = obj[1][SWITCHES][1], obj[1][GPUS][1]
    assert codes(ask(gpus, json.dumps(obj).encode())) == ["submods_digest_mismatch"]


@pytest.mark.parametrize("local", ["HS256", "none"])
def test_a_bundle_of_the_local_verifier_is_refused_beside_a_genuine_one(
    gpus: NrasService, local: str
) -> None:
    service = "https://nras.attestation.nvidia.com"
    claims = {"iss": service, "eat_nonce": NONCE.hex(), "exp": NOW + 9, "submods": {}}
    token = unsigned(claims) if local == "none" else gpus.issuer.hmac_with_public_key(claims)
    bundle = json.dumps([["JWT", token], {"GPU-0": token}]).encode()
    raw = sdk_token({GPUS: gpus.bundle(NONCE), "LOCAL_GPU_CLAIMS": bundle})
    expected = "alg_none" if local == "none" else "alg_not_accepted"
    assert codes(ask(gpus, raw))[0] == expected


def test_a_local_verifiers_token_is_read_and_refused(gpus: NrasService) -> None:
    claims = {"iss": "LOCAL_GPU_VERIFIER", "submods": {}}
    overall = gpus.issuer.hmac_with_public_key(claims)
    bundle = json.dumps([["JWT", overall], {"GPU-0": overall}]).encode()
    examined = ask(gpus, sdk_token({"LOCAL_GPU_CLAIMS": bundle}))
    assert codes(examined)[0] == "alg_not_accepted"
    assert examined.claims["iss"] == "LOCAL_GPU_VERIFIER"


@pytest.mark.parametrize(
    ("arch", "ok"), [("HOPPER", True), ("LS10", True), ("BLACKWELL", False), ("ADA", False)]
)
def test_an_architecture_asked_of_gpus_says_nothing_of_switches_beside_them(
    gpus: NrasService, switches: NrasService, arch: str, ok: bool
) -> None:
    found = ask(gpus, sdk_token(both(gpus, switches)), expected=Expected(nonce=NONCE, arch=arch))
    if ok:
        assert found.authentic is True
    else:
        assert codes(found) == ["product_not_accepted"]


def test_switches_alone_are_no_gpus(gpus: NrasService, switches: NrasService) -> None:
    raw = sdk_token({GPUS: switches.bundle(NONCE)})
    asked = Expected(nonce=NONCE, arch="HOPPER")
    assert codes(ask(gpus, raw, expected=asked)) == ["product_not_accepted"]


def test_a_switch_among_the_gpus_of_one_bundle_is_none_of_them(
    gpus: NrasService, switches: NrasService
) -> None:
    gpus.devices["GPU-1"] = switch_claims(7)
    asked = Expected(nonce=NONCE, arch="HOPPER")
    found = ask(gpus, sdk_token(both(gpus, switches)), expected=asked)
    assert codes(found) == ["product_not_accepted"]


@pytest.mark.parametrize("hidden", ["GB100 A01 GSP BROM", "GH100 A01 GSP BROM"])
def test_a_gpu_does_not_hide_in_a_bundle_with_switches(
    gpus: NrasService, switches: NrasService, hidden: str
) -> None:
    switches.devices["GPU-0"] = gpu_claims(7) | {"hwmodel": hidden}
    asked = Expected(nonce=NONCE, arch="HOPPER")
    found = ask(gpus, sdk_token(both(gpus, switches)), expected=asked)
    assert codes(found) == ["product_not_accepted"]


def test_one_unsigned_bundle_asks_for_no_keys(gpus: NrasService) -> None:
    token = unsigned({"submods": {}})
    local = json.dumps([["JWT", token], {"GPU-0": token}]).encode()
    raw = sdk_token({GPUS: gpus.bundle(NONCE), "LOCAL_GPU_CLAIMS": local})
    assert SCHEME.needs({"eat": raw}) == ()


# --- forms


def shapes(obj: list[Any]) -> dict[str, Any]:
    """Documents that say what we do not understand, or in which a device could go unread."""
    wrapper, detached = obj
    bundle = detached[GPUS]
    device = bundle[1]["GPU-0"]
    return {
        "no bundle": [wrapper, {}],
        "a token beside a bundle": [wrapper, {**detached, "GPU-0": device}],
        "a token under a verifier's name": [wrapper, {GPUS: bundle, SWITCHES: device}],
        "a bundle under a device's name": [wrapper, {"GPU-0": bundle}],
        "one under an unknown name": [wrapper, {GPUS: bundle, "GPU-0": bundle}],
        "a bundle under an unknown name": [wrapper, {"remote_gpu_claims": bundle}],
        "an empty bundle": [wrapper, {GPUS: bundle, SWITCHES: []}],
        "a bundle that is an object": [wrapper, {GPUS: {"detached_eat": bundle}}],
        "a wrapped bundle in a bundle": [wrapper, {GPUS: obj}],
        "a bundle of three": [wrapper, {GPUS: [*bundle, {}]}],
        "a third item": [*obj, {}],
        "no wrapper": [["JWT", ""], detached],
        "a bundle as the wrapper": [bundle, detached],
        "null": [wrapper, {GPUS: bundle, SWITCHES: None}],
    }


@pytest.mark.parametrize(
    "shape", list(shapes([[], {GPUS: [[], {"GPU-0": ""}]}]))
)  # fmt: skip
def test_a_wrapped_form_that_could_hide_a_device_is_malformed(
    gpus: NrasService, shape: str
) -> None:
    obj = json.loads(sdk_token({GPUS: gpus.bundle(NONCE)}))
    raw = json.dumps(shapes(obj)[shape]).encode()
    assert codes(ask(gpus, raw)) == ["evidence_malformed"]
    assert SCHEME.needs({"eat": raw}) == ()


def test_a_verifiers_name_twice_is_malformed(gpus: NrasService) -> None:
    obj = json.loads(sdk_token({GPUS: gpus.bundle(NONCE)}))
    bundle = json.dumps(obj[1][GPUS])
    raw = f'[{json.dumps(obj[0])},{{"{GPUS}":{bundle},"{GPUS}":{bundle}}}]'.encode()
    assert codes(ask(gpus, raw)) == ["evidence_malformed"]


def test_an_overall_token_as_the_wrapper_would_hide_the_devices_it_names(
    gpus: NrasService, switches: NrasService
) -> None:
    genuine = json.loads(gpus.bundle(NONCE))
    raw = json.dumps([genuine[0], {SWITCHES: json.loads(switches.bundle(NONCE))}]).encode()
    assert codes(ask(gpus, raw)) == ["evidence_malformed"]


@pytest.mark.parametrize("over", [False, True])
def test_what_nobody_signed_is_short(gpus: NrasService, over: bool) -> None:
    obj = json.loads(sdk_token({GPUS: gpus.bundle(NONCE)}))
    size = WRAPPER_MAX + over
    lengths = ((claims, signature) for claims in range(4) for signature in range(760))
    wrapper = next(
        token
        for claims, signature in lengths
        if len(token := compact({"alg": "HS256"}, {"jti": "x" * claims}, bytes(signature))) == size
    )
    raw = json.dumps([["JWT", wrapper], obj[1]]).encode()
    if over:
        with pytest.raises(MalformedError, match="wrapper"):
            parse_bundle(raw)
    else:
        assert ask(gpus, raw).authentic is True


def test_claims_are_what_all_bundles_say_alike(gpus: NrasService, switches: NrasService) -> None:
    switches.overall["sub"] = "another"
    gpus.overall["measres"] = "fail"  # of all devices alike "success", of one overall token not
    claims = ask(gpus, sdk_token(both(gpus, switches))).claims
    assert "sub" not in claims
    assert "measres" not in claims
    assert claims["x-nvidia-ver"] == "3.0"
    assert claims["dbgstat"] == "disabled"
    assert (claims["alg"], claims["kid"]) == ("ES384", gpus.issuer.kid)
    gpus.header["kid"] = "another"
    assert "kid" not in ask(gpus, sdk_token(both(gpus, switches))).claims


def test_all_bundles_together_are_bounded(gpus: NrasService, switches: NrasService) -> None:
    gpus.devices = {f"GPU-{n}": {} for n in range(DEVICES_MAX - 2)}
    assert len(parse_bundle(sdk_token(both(gpus, switches))).devices) == DEVICES_MAX
    gpus.devices["GPU-X"] = {}
    with pytest.raises(MalformedError, match=str(DEVICES_MAX)):
        parse_bundle(sdk_token(both(gpus, switches)))


def test_the_number_of_bundles_is_bounded(switches: NrasService) -> None:
    bundle = switches.bundle(NONCE)
    names = [f"{'ABCDEFGH'[n]}_CLAIMS" for n in range(BUNDLES_MAX + 1)]
    assert len(parse_bundle(sdk_token(dict.fromkeys(names[1:], bundle))).answers) == BUNDLES_MAX
    with pytest.raises(MalformedError, match=str(BUNDLES_MAX)):
        parse_bundle(sdk_token(dict.fromkeys(names, bundle)))

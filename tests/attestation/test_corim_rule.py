"""Which manifests may be imported, and what their profiles forbid; one fact changed in each."""

from __future__ import annotations

from typing import Any

import pytest
from simulators.corim import (
    CCA_PLATFORM,
    CCA_REALM,
    PSA,
    CorimPublisher,
    component,
    digest,
    element,
    environment,
    tagged,
)

from attestation.formats.corim import Manifest, parse_manifest
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes.corim import SCHEME
from wire.errors import PolicyError

NOW = 1_790_000_000
INSTANCE = tagged(550, b"\x01" + bytes(32))
PKIX = tagged(554, "-----BEGIN PUBLIC KEY-----")
VIOLATED = ("profile_violation",)
STRICT = {"signed": "any", "profiles": "any", "validity": "ignored"}


def rule(**demands: Any) -> Any:
    required, optional = SCHEME.rule_keys
    return SCHEME.rule(
        Members(demands, "rule", required=required, optional=optional, error=PolicyError)
    )


def codes(manifest: bytes | Manifest, now: int = NOW, **demands: Any) -> tuple[str, ...]:
    parsed = parse_manifest(manifest) if isinstance(manifest, bytes) else manifest
    ledger = Ledger()
    SCHEME.judge(ledger, parsed, rule(**demands), now)
    return tuple(reason.code for reason in ledger.reasons)


def test_a_signed_manifest_in_its_time_is_accepted_by_default() -> None:
    publisher = CorimPublisher(not_before=NOW - 1, not_after=NOW + 1)
    assert codes(publisher.signed()) == ()


def test_an_unsigned_manifest_is_accepted_only_where_the_rule_says_any() -> None:
    raw = CorimPublisher().unsigned()
    assert codes(raw) == ("signature_missing",)
    assert codes(raw, signed="required") == ("signature_missing",)
    assert codes(raw, signed="any") == ()


@pytest.mark.parametrize(
    ("times", "code"),
    [
        ({"not_before": NOW + 1}, "manifest_not_yet_valid"),
        ({"not_after": NOW - 1}, "manifest_expired"),
    ],
)
def test_a_signature_out_of_its_time_is_refused_unless_ignored(
    times: dict[str, int], code: str
) -> None:
    signed = CorimPublisher(**times).signed()
    assert codes(signed) == (code,)
    assert codes(signed, validity="enforced") == (code,)
    assert codes(signed, validity="ignored") == ()


def test_the_statements_own_time_counts_beside_the_signatures() -> None:
    publisher = CorimPublisher(not_before=NOW - 1, not_after=NOW + 1)
    publisher.members[4] = {0: tagged(1, NOW - 9), 1: tagged(1, NOW - 5)}
    assert codes(publisher.signed()) == ("manifest_expired",)


def test_a_profile_without_known_rules_is_refused_unless_named() -> None:
    publisher = CorimPublisher(members={3: "http://example.com/profile"})
    assert codes(publisher.signed()) == ("profile_not_accepted",)
    assert codes(publisher.signed(), profiles=["http://example.com/profile"]) == ()
    assert codes(publisher.signed(), profiles="any") == ()
    publisher.members[3] = tagged(111, b"\x2a\x03")
    assert codes(publisher.signed(), profiles=["oid:2a03"]) == ()


def test_a_profile_that_the_rule_does_not_name_is_refused() -> None:
    assert codes(platform().signed(), profiles=[CCA_REALM]) == ("profile_not_accepted",)
    assert codes(platform().signed(), profiles=[]) == ("profile_not_accepted",)


@pytest.mark.parametrize(
    "demands",
    [
        {"signed": True},
        {"signed": "no"},
        {"validity": "any"},
        {"profiles": "all"},
        {"profiles": [1]},
        {"keys": []},
    ],
)
def test_a_rule_of_other_words_is_refused(demands: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        rule(**demands)


REGISTRY = (
    (1, "sha-256", 32),
    (2, "sha-256-128", 16),
    (3, "sha-256-120", 15),
    (4, "sha-256-96", 12),
    (5, "sha-256-64", 8),
    (6, "sha-256-32", 4),
    (7, "sha-384", 48),
    (8, "sha-512", 64),
    (9, "sha3-224", 28),
    (10, "sha3-256", 32),
    (11, "sha3-384", 48),
    (12, "sha3-512", 64),
)


@pytest.mark.parametrize(("number", "name", "size"), REGISTRY)
def test_a_digest_has_its_algorithms_length_exactly(number: int, name: str, size: int) -> None:
    for algorithm in (number, name):
        for length, found in ((size, ()), (size - 1, VIOLATED), (size + 1, VIOLATED)):
            publisher = CorimPublisher()
            publisher.reference(environment(), element("a", {2: [[algorithm, bytes(length)]]}))
            assert codes(publisher.signed()) == found


@pytest.mark.parametrize(
    ("algorithm", "size"),
    [(1, 31), (1, 33), (7, 32), (8, 48), (6, 32), (12, 32), ("sha-256", 48), ("SHA-384", 32)],
)
def test_a_digest_of_another_length_than_its_algorithms_is_refused(
    algorithm: int | str, size: int
) -> None:
    publisher = CorimPublisher()
    publisher.reference(environment(), element("a", {2: [[algorithm, bytes(size)]]}))
    assert codes(publisher.signed()) == VIOLATED
    registers = CorimPublisher()
    registers.reference(environment(), element("a", {14: {0: [[algorithm, bytes(size)]]}}))
    assert codes(registers.signed()) == VIOLATED


def test_two_digests_of_one_algorithm_are_refused() -> None:
    publisher = CorimPublisher()
    publisher.reference(environment(), element("a", {2: [[1, bytes(32)], [1, digest("b")]]}))
    assert codes(publisher.signed()) == VIOLATED


def test_an_unknown_algorithms_digest_may_have_any_length() -> None:
    publisher = CorimPublisher()
    publisher.reference(environment(), element("a", {2: [["my-own", b"\xde\xad"]]}))
    assert codes(publisher.signed()) == ()


def platform(*measurements: Any, where: Any = None) -> CorimPublisher:
    publisher = CorimPublisher(members={3: tagged(32, CCA_PLATFORM)})
    return publisher.reference(where or environment(), *(measurements or (component(),)))


def config(**changes: Any) -> dict[int, Any]:
    values = {4: tagged(563, [b"ab", b"cd"]), **{int(k[1:]): v for k, v in changes.items()}}
    return {
        0: "cca.platform-config",
        1: {number: value for number, value in values.items() if value is not None},
    }


@pytest.mark.parametrize(
    "measurements",
    [
        (component(),),
        (component(), component(v11="RMM")),
        (component(v11=None),),
        (component(v0={0: "1.2.3"}),),
        (component(v2=[["sha-256", bytes(32)], ["sha-512", bytes(64)]]),),
        (component(), config()),
        (component(), config(v4=tagged(560, b"ab"), v5=b"cd")),
        (component(), element("cca.rotpk.CM.2.3", {4: tagged(560, b"x")})),
    ],
)
def test_a_platform_that_keeps_its_profile_is_accepted(measurements: tuple[Any, ...]) -> None:
    assert codes(platform(*measurements).signed()) == ()


@pytest.mark.parametrize(
    "measurements",
    [
        (component(v2=None),),
        (component(v2=[]),),
        (component(v2=[[1, bytes(31)]]),),
        (component(v2=[["own", bytes(20)]]),),
        (component(v13=None),),
        (component(v13=[]),),
        (component(v13=[tagged(560, bytes(32))] * 2),),
        (component(v13=[tagged(560, bytes(31))]),),
        (component(v13=[tagged(554, "key")]),),
        (component(v13=[tagged(560, "text")]),),
        (component(v0={0: "1.2.3", 1: 16384}),),
        (component(v1=3),),
        (component(v3={0: True}),),
        (component("cca.other"),),
        (component("psa.software-component"),),
        (component("cca.rim"),),
        ({**component(), 2: [tagged(554, "key")]},),
        ({1: component()[1]},),
        ({**component(), 0: 7},),
        ({**component(), 0: tagged(37, bytes(16))},),
        (config(),),
        (component(), config(), config()),
        (component(), config(v4=None, v5=b"cd")),
        (component(), config(v4=tagged(560, b"ab"))),
        (component(), config(v4=b"ab", v5=b"cd")),
        (component(), config(v4=tagged(563, [b"ab", b"c"]))),
        (component(), config(v11="name")),
        (component(), element("cca.rotpk.CM.8.0", {4: tagged(560, b"x")})),
        (component(), element("cca.rotpk.CM.2.3", {11: "x"})),
        (component(), element("cca.rotpk.CM.2.3", {4: tagged(560, b"x"), 11: "x"})),
    ],
)
def test_a_platform_that_breaks_its_profile_is_refused(measurements: tuple[Any, ...]) -> None:
    found = codes(platform(*measurements).signed(), **STRICT)
    assert set(found) == set(VIOLATED)


@pytest.mark.parametrize(
    "where",
    [
        environment(tagged(560, bytes(31))),
        environment(tagged(560, bytes(33))),
        environment(tagged(560, "text")),
        environment(tagged(37, bytes(16))),
        environment(bytes(32)),
        {0: {1: "ACME"}},
        {1: INSTANCE},
    ],
)
def test_an_implementation_id_of_another_kind_is_refused(where: Any) -> None:
    assert codes(platform(where=where).signed(), **STRICT) == VIOLATED
    keys = CorimPublisher(members={3: CCA_PLATFORM}).attest_key({**where, 1: INSTANCE}, PKIX)
    assert codes(keys.signed(), **STRICT) == VIOLATED


@pytest.mark.parametrize(
    ("instance", "keys"),
    [
        (None, [PKIX]),
        (tagged(550, b"\x02" + bytes(32)), [PKIX]),
        (tagged(550, b"\x01" + bytes(31)), [PKIX]),
        (tagged(560, b"\x01" + bytes(32)), [PKIX]),
        (b"\x01" + bytes(32), [PKIX]),
        (INSTANCE, []),
        (INSTANCE, [PKIX, PKIX]),
        (INSTANCE, [tagged(555, "certificate")]),
        (INSTANCE, ["text"]),
    ],
)
@pytest.mark.parametrize("profile", [CCA_PLATFORM, PSA])
def test_an_attestation_key_of_another_kind_is_refused(
    instance: Any, keys: list[Any], profile: str
) -> None:
    where = environment() if instance is None else environment(instance=instance)
    publisher = CorimPublisher(members={3: profile}).attest_key(where, *keys)
    assert codes(publisher.signed()) == VIOLATED


@pytest.mark.parametrize("profile", [CCA_PLATFORM, PSA])
def test_one_pkix_key_of_one_instance_is_accepted(profile: str) -> None:
    publisher = CorimPublisher(members={3: profile})
    publisher.attest_key(environment(instance=INSTANCE), PKIX)
    assert codes(publisher.signed()) == ()


def realm(*measurements: Any, where: Any = None) -> CorimPublisher:
    publisher = CorimPublisher(members={3: CCA_REALM})
    return publisher.reference(where or environment(), *measurements)


RIM = element("cca.rim")
RPV = element("cca.rpv", {4: tagged(560, b"anything")})


@pytest.mark.parametrize(
    "measurements",
    [
        (RIM,),
        (RIM, *(element(f"cca.rem{number}") for number in range(4)), RPV),
        (element("cca.rim", {2: [["sha-512", bytes(64)]]}),),
    ],
)
def test_a_realm_that_keeps_its_profile_is_accepted(measurements: tuple[Any, ...]) -> None:
    assert codes(realm(*measurements).signed()) == ()


@pytest.mark.parametrize("size", [48, 64])
def test_a_realm_may_be_named_by_a_longer_measurement(size: int) -> None:
    assert codes(realm(RIM, where=environment(tagged(560, bytes(size)))).signed()) == ()


@pytest.mark.parametrize(
    "measurements",
    [
        (element("cca.rem0"),),
        (RIM, RIM),
        (RIM, RPV, RPV),
        (RIM, element("cca.rem4")),
        (RIM, element("cca.rem00")),
        (RIM, component()),
        (element("cca.rim", {2: []}),),
        (element("cca.rim", {2: [[1, bytes(32)], [8, bytes(64)]]}),),
        (element("cca.rim", {2: [["own", bytes(20)]]}),),
        (element("cca.rim", {2: [[1, bytes(32)]], 11: "name"}),),
        (RIM, element("cca.rpv", {4: b"bare"})),
        (RIM, element("cca.rpv", {11: "name"})),
        (RIM, element("cca.rpv", {4: tagged(560, b"x"), 11: "name"})),
        ({**RIM, 2: [PKIX]},),
    ],
)
def test_a_realm_that_breaks_its_profile_is_refused(measurements: tuple[Any, ...]) -> None:
    assert set(codes(realm(*measurements).signed(), **STRICT)) == set(VIOLATED)


@pytest.mark.parametrize("size", [0, 31, 33, 65])
def test_a_realm_named_by_no_hash_is_refused(size: int) -> None:
    assert codes(realm(RIM, where=environment(tagged(560, bytes(size)))).signed()) == VIOLATED


def test_a_realm_has_no_attestation_keys() -> None:
    publisher = realm(RIM).attest_key(environment(instance=INSTANCE), PKIX)
    assert codes(publisher.signed()) == VIOLATED


def psa(*measurements: Any) -> CorimPublisher:
    return CorimPublisher(members={3: PSA}).reference(environment(), *measurements)


def test_psa_components_keep_or_break_their_profile() -> None:
    good = component("psa.software-component")
    assert codes(psa(good).signed()) == ()
    assert codes(psa(component()).signed()) == VIOLATED
    assert codes(psa(component("psa.software-component", v13=None)).signed()) == VIOLATED
    assert codes(psa().signed()) == VIOLATED


def test_a_psa_component_may_name_its_certificate_and_no_other_profiles_may() -> None:
    number = {"v100": "0604565272829 - 10010"}
    assert codes(psa(component("psa.software-component", **number)).signed()) == ()
    assert codes(psa(component("psa.software-component", v101="1")).signed()) == VIOLATED
    assert codes(platform(component(**number)).signed()) == VIOLATED


def test_every_declared_profile_counts_for_every_module() -> None:
    publisher = platform()
    publisher.members[3] = [CCA_PLATFORM, CCA_REALM]
    assert codes(publisher.signed()) == VIOLATED


def test_the_same_module_without_a_profile_keeps_none() -> None:
    publisher = platform(component(v13=None))
    del publisher.members[3]
    assert codes(publisher.signed()) == ()

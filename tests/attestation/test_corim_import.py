"""What an import takes from a manifest, and that it never takes more than it can express."""

from __future__ import annotations

from typing import Any

import pytest
from simulators.corim import (
    CCA_PLATFORM,
    PSA,
    CorimPublisher,
    component,
    digest,
    element,
    environment,
    tagged,
)

from attestation.formats.corim import parse_manifest
from attestation.reference_values import ReferenceValues, reference_values
from wire.errors import AttestationError


def imported(publisher: CorimPublisher) -> ReferenceValues:
    return reference_values(parse_manifest(publisher.signed()))


def one(values: dict[int, Any], key: Any = "firmware") -> Any:
    found = imported(CorimPublisher().reference(environment(), element(key, values)))
    assert len(found.values) == 1
    return found.values[0]


def refused(publisher: CorimPublisher, code: str) -> None:
    with pytest.raises(AttestationError) as caught:
        imported(publisher)
    assert caught.value.reasons == (code,)


def test_a_component_is_named_by_its_key_and_its_name() -> None:
    publisher = CorimPublisher(members={3: CCA_PLATFORM})
    publisher.reference(environment(), component(), component(v11="RMM", v2=[[8, bytes(64)]]))
    found = imported(publisher)
    assert [value.key for value in found.values] == [
        "cca.software-component/BL2",
        "cca.software-component/RMM",
    ]
    assert found.values[0].digests == {"sha256": (digest("component"),)}
    assert found.values[0].environment == f"class=560:h'{digest('class').hex()}'"
    assert found.named("sha512") == {"cca.software-component/RMM": (bytes(64),)}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("firmware", "firmware"),
        (700, "700"),
        (tagged(37, bytes(16)), f"37:h'{bytes(16).hex()}'"),
        (None, ""),
    ],
)
def test_elements_are_named_by_whatever_names_them(key: Any, name: str) -> None:
    assert one({2: [[1, digest("x")]]}, key).key == name


def test_one_module_is_not_another() -> None:
    publisher = CorimPublisher()
    for where in (
        environment(vendor="ACME"),
        environment(vendor="ACME", model="A"),
        environment(vendor="ACME", layer=1),
        environment(tagged(37, digest("class")[:16]), vendor="ACME"),
        environment(vendor="ACME", instance=tagged(550, b"\x01" + bytes(32))),
    ):
        publisher.reference(where, element("a"))
    assert len({value.environment for value in imported(publisher).values}) == 5


@pytest.mark.parametrize(
    ("given", "number", "minimum"),
    [(3, 3, False), (tagged(552, 3), 3, False), (tagged(553, 3), 3, True)],
)
def test_a_security_version_is_exact_or_a_minimum(given: Any, number: int, minimum: bool) -> None:
    value = one({1: given})
    assert (value.svn, value.svn_minimum) == (number, minimum)
    assert value.digests == {}


@pytest.mark.parametrize(
    ("algorithm", "size", "name"),
    [
        (1, 32, "sha256"),
        (7, 48, "sha384"),
        (8, 64, "sha512"),
        ("sha-384", 48, "sha384"),
        ("SHA-512", 64, "sha512"),
        (10, 32, "sha3-256"),
    ],
)
def test_algorithms_take_the_names_of_our_policies(
    algorithm: int | str, size: int, name: str
) -> None:
    assert one({2: [[algorithm, bytes(size)]]}).digests == {name: (bytes(size),)}


@pytest.mark.parametrize(("algorithm", "size"), [(6, 4), (2, 16), ("my-own", 4)])
def test_a_cut_or_unknown_digest_is_left_out_and_said(algorithm: int | str, size: int) -> None:
    publisher = CorimPublisher().reference(
        environment(), element("a", {1: 1, 2: [[algorithm, bytes(size)]]})
    )
    found = imported(publisher)
    assert found.values[0].digests == {}
    assert found.left_out == ("1 digests of a",)


def test_registers_are_elements_of_their_own() -> None:
    registers = {0: [[1, digest("zero")]], "boot": [[1, digest("boot")]]}
    publisher = CorimPublisher().reference(environment(), element("a", {14: registers}))
    assert imported(publisher).named("sha256") == {
        "register 0": (digest("zero"),),
        "register boot": (digest("boot"),),
    }


def test_equal_elements_of_several_triples_are_alternatives() -> None:
    publisher = CorimPublisher()
    for text in ("old", "new"):
        publisher.reference(environment(), element("a", {2: [[1, digest(text)]]}))
    assert imported(publisher).named("sha256") == {"a": (digest("old"), digest("new"))}


def test_what_cannot_be_expressed_is_left_out_and_said() -> None:
    values = {0: {0: "1.0"}, 2: [[1, digest("x")]], 4: tagged(563, [b"a", b"b"]), 3: {}, 9: b"u"}
    publisher = CorimPublisher().reference(environment(), element("a", values))
    publisher.triples[1] = [[environment(), [element("b")]]]
    publisher.triples[8] = []
    found = imported(publisher)
    assert [value.key for value in found.values] == ["a"]
    assert found.left_out == (
        "triples 8",
        "member 3 of a",
        "member 9 of a",
        "raw value of a",
        "version of a",
        f"endorsement of class=560:h'{digest('class').hex()}'",
    )


def left_out_beside_one(*measurements: dict[int, Any]) -> tuple[str, ...]:
    """What is said to be left out of a manifest of which one honest element is imported."""
    publisher = CorimPublisher().reference(environment(), element("honest"), *measurements)
    found = imported(publisher)
    assert [value.key for value in found.values] == ["honest"]
    return found.left_out


def test_a_value_that_only_an_authority_may_state_is_not_imported_as_anybodys() -> None:
    """Whoever copies it into a policy would accept it of every signer."""
    for keys in ([tagged(554, "-----BEGIN PUBLIC KEY-----")], []):
        assert left_out_beside_one(element("a", authority=keys)) == (
            "all of a, which names an authority",
        )
    alone = CorimPublisher().reference(environment(), element("a", authority=[tagged(557, [1])]))
    refused(alone, "reference_values_empty")


def test_the_registers_of_an_authorised_element_are_not_imported_either() -> None:
    registers = {14: {0: [[1, digest("zero")]]}, 1: 7}
    assert left_out_beside_one(element("a", registers, authority=[tagged(554, "key")])) == (
        "all of a, which names an authority",
    )


def test_an_element_with_a_structured_name_is_not_imported_under_no_name() -> None:
    """All of them would have the same one, and each value would do for each element."""
    named = element(tagged(601, {1: "BL", 4: "1.0"}))
    assert left_out_beside_one(named) == ("an element that a structure names (tag 601)",)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({13: [tagged(554, "key")]}, "keys"),
        ({13: []}, "keys"),
        ({5: b"\xff"}, "mask"),
        ({0: {0: "1.0"}}, "version"),
        ({0: {1: 16384}}, "version"),
        ({4: b"\1"}, "raw value"),
    ],
)
def test_a_condition_beside_an_imported_digest_is_said_to_be_left_out(
    values: dict[int, Any], what: str
) -> None:
    publisher = CorimPublisher()
    publisher.reference(environment(), element("a", {2: [[1, digest("x")]], **values}))
    found = imported(publisher)
    assert found.named("sha256") == {"a": (digest("x"),)}
    assert found.left_out == (f"{what} of a",)


def test_a_module_s_own_keys_are_said_to_be_left_out() -> None:
    publisher = CorimPublisher(members={3: PSA})
    publisher.reference(environment(), component("psa.software-component"))
    publisher.attest_key(
        environment(instance=tagged(550, b"\1" + bytes(32))), tagged(554, "-----BEGIN PUBLIC KEY")
    )
    assert imported(publisher).left_out == (
        "keys of psa.software-component/BL2",
        f"keys of class=560:h'{digest('class').hex()}' instance=550:h'01{'00' * 32}'",
    )


def test_an_endorsement_is_no_reference_value() -> None:
    publisher = CorimPublisher(triples={1: [[environment(), [element("a")]]]})
    refused(publisher, "reference_values_empty")


def test_a_manifest_without_reference_values_is_refused() -> None:
    refused(CorimPublisher(triples={9: []}), "reference_values_empty")
    refused(CorimPublisher().reference(environment()), "reference_values_empty")


def test_a_manifest_that_breaks_its_profile_gives_nothing() -> None:
    publisher = CorimPublisher(members={3: CCA_PLATFORM})
    publisher.reference(environment(), component(), component(v13=None))
    refused(publisher, "profile_violation")


def test_a_digest_of_the_wrong_length_gives_nothing() -> None:
    publisher = CorimPublisher().reference(environment(), element("a", {2: [[1, bytes(31)]]}))
    refused(publisher, "profile_violation")

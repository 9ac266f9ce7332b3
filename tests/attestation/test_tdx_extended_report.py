"""Extended TD reports 1.5 (body type 4 of quote v5): read, verified, and judged like the others."""

from __future__ import annotations

import struct
from typing import Any

import dcap_qvl  # type: ignore[import-untyped]
import pytest
from simulators.intel import Intel, processor

from attestation.formats.dcap_bodies import TD15EX_LEN
from attestation.formats.dcap_quote import parse_quote
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes.tdx import SCHEME
from wire.errors import MalformedError, PolicyError

HASHES = ("init_service_td_hash", "cur_service_td_hash")
ATTRIBUTES = ("init_service_td_attributes", "cur_service_td_attributes")
ORIGIN = ("init_cpu_svn", "init_tee_tcb_svn", "init_tee_fmspc")
NAMED, STRANGER = b"\x11" * 48, b"\x66" * 48
DENIED = bytes.fromhex("00806f050000")
SERVTD_EXT = (1 << 28 | 1 << 17).to_bytes(8, "little")


def extended() -> Intel:
    return Intel(version=5).extended()


def judged(intel: Intel, deny: tuple[bytes, ...] = (), **td: Any) -> set[str]:
    """Reasons of the state, under a rule that leaves the image open."""
    examined = SCHEME.examine(intel.question())
    assert examined.authentic, examined.reasons
    required, optional = SCHEME.rule_keys
    members = Members(
        {
            "image": "any",
            "tcb": {"statuses": ["UpToDate"]},
            "platform": {"fmspc_deny": [fmspc.hex() for fmspc in deny]} if deny else {},
            "td": td,
        },
        "rule",
        required=required,
        optional=optional,
        error=PolicyError,
    )
    ledger = Ledger()
    SCHEME.judge(ledger, examined.facts, SCHEME.rule(members), intel.now)
    return {reason.code for reason in ledger.reasons}


def test_a_genuine_extended_report_is_authentic_and_accepted() -> None:
    assert judged(extended()) == set()


def test_its_members_are_claimed_by_name() -> None:
    intel = extended()
    intel.body["vmid"] = b"\x02"
    claims = SCHEME.examine(intel.question()).claims
    assert claims["body_type"] == "td15ex"
    assert claims["vmid"] == 2
    assert claims["td_id"] == intel.body["td_id"].hex()
    assert claims["mr_service_td"] == bytes(48).hex()
    assert claims["init_tee_fmspc"] == intel.body["init_tee_fmspc"].hex()


def test_two_readers_find_the_same_members_at_the_same_places() -> None:
    intel = extended()
    for number, name in enumerate(list(intel.body), 1):
        intel.body[name] = bytes((number,)) * len(intel.body[name])
    quote = intel.quote()
    other = dcap_qvl.parse_quote(quote).report
    ours = parse_quote(quote).body
    assert {name: bytes(getattr(other, name)) for name in intel.body if name != "vmid"} == {
        name: getattr(ours, name) for name in intel.body if name != "vmid"
    }
    assert getattr(ours, "vmid") == intel.body["vmid"]  # noqa: B009  # two kinds of body


@pytest.mark.parametrize("name", HASHES)
def test_a_service_td_now_or_at_the_beginning_is_refused(name: str) -> None:
    intel = extended()
    intel.body[name] = bytes(47) + b"\x01"
    assert judged(intel) == {"service_td_present"}
    assert judged(intel, service_td=[intel.body[name].hex()]) == set()


@pytest.mark.parametrize("name", HASHES)
def test_a_named_service_td_lets_no_other_one_in(name: str) -> None:
    intel = extended()
    intel.body["mr_service_td"] = NAMED
    assert judged(intel, service_td=[NAMED.hex()]) == set()
    intel.body[name] = STRANGER
    assert judged(intel, service_td=[NAMED.hex()]) == {"service_td_present"}


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("name", ATTRIBUTES)
def test_service_td_attributes_are_refused_unless_they_are_named(name: str, bound: bool) -> None:
    intel = extended()
    intel.body[name] = b"\x01" + bytes(7)
    service_td: Any = "none"
    if bound:
        intel.body |= dict.fromkeys(("mr_service_td", *HASHES), NAMED)
        service_td = [NAMED.hex()]
    assert judged(intel, service_td=service_td) == {"service_td_present"}
    other = [(b"\x02" + bytes(7)).hex()]
    assert judged(intel, service_td=service_td, service_td_attributes=other) == {
        "service_td_present"
    }
    named = [intel.body[name].hex()]
    assert judged(intel, service_td=service_td, service_td_attributes=named) == set()


@pytest.mark.parametrize(
    ("key", "length"),
    [("service_td", 48), ("service_td_attributes", 8), ("vmid", 1), ("dev_info", 48),
     ("origin", 44)],
)  # fmt: skip
def test_no_list_holds_zeros_or_another_length(key: str, length: int) -> None:
    for value in (bytes(length), b"\x01" * (length + 1), b"\x01" * (length - 1)):
        with pytest.raises(PolicyError):
            judged(extended(), **{key: [value.hex()]})
    with pytest.raises(PolicyError):
        judged(extended(), **{key: []})


@pytest.mark.parametrize(
    ("name", "value"),
    [("vmid", b"\x05"), ("dev_info", b"\x22" * 48), ("dev_info", bytes(47) + b"\x02")],
)
def test_another_vm_or_assigned_devices_are_refused_unless_they_are_named(
    name: str, value: bytes
) -> None:
    intel = extended()
    intel.body[name] = value
    assert judged(intel) == {"td_extension_not_accepted"}
    assert judged(intel, **{name: [bytes(value[:-1] + b"\x01").hex()]}) == {
        "td_extension_not_accepted"
    }
    assert judged(intel, **{name: [value.hex()]}) == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("init_cpu_svn", bytes(16)),
        ("init_cpu_svn", bytes([4, 3, 2, 2, 4, 1, 0, 5]) + bytes(8)),
        ("init_tee_tcb_svn", bytes(16)),
        ("init_tee_tcb_svn", bytes([10, 1, 4]) + bytes(13)),
        ("init_tee_fmspc", bytes(12)),
        ("init_tee_fmspc", processor(DENIED)),
        ("init_tee_fmspc", bytes.fromhex("90c06f000000") + bytes(6)),
        ("init_tee_fmspc", b"\x01" + processor(bytes.fromhex("90c06f000000"))[1:]),
        ("init_tee_fmspc", processor(bytes.fromhex("90c06f000000"))[:6] + b"\x10" + bytes(5)),
        ("init_tee_fmspc", processor(bytes.fromhex("90c06f000000"))[:11] + b"\0"),
    ],
)
def test_a_td_that_began_elsewhere_is_refused_unless_that_is_named(name: str, value: bytes) -> None:
    intel = extended()
    intel.body[name] = value
    assert judged(intel) == {"td_origin_not_accepted"}
    origin = b"".join(intel.body[member] for member in ORIGIN)
    assert judged(intel, origin=[(b"\x01" + origin[1:-1] + b"\x01").hex()]) == {
        "td_origin_not_accepted"
    }
    assert judged(intel, origin=[origin.hex()]) == set()


def test_a_td_that_began_here_on_better_components_is_accepted() -> None:
    intel = extended()
    intel.body["init_cpu_svn"] = bytes([5, *intel.components[1:]])
    intel.body["init_tee_fmspc"] = bytes.fromhex("00000000f2060c0000000080")  # another stepping
    assert judged(intel) == set()


def test_a_denied_processor_is_denied_as_an_origin_too_even_where_it_is_named() -> None:
    intel = extended()
    intel.body["init_tee_fmspc"] = processor(DENIED)
    assert judged(intel, (DENIED,)) == {"td_origin_not_accepted", "platform_denied"}
    origin = [b"".join(intel.body[name] for name in ORIGIN).hex()]
    assert judged(intel, (DENIED,), origin=origin) == {"platform_denied"}
    assert judged(extended(), (DENIED,)) == set()


def test_an_origin_that_cannot_be_read_may_be_a_denied_one() -> None:
    intel = extended()
    intel.body["init_tee_fmspc"] = DENIED + bytes(6)
    origin = [b"".join(intel.body[name] for name in ORIGIN).hex()]
    assert judged(intel, (DENIED,), origin=origin) == {"platform_denied"}


@pytest.mark.parametrize(
    ("words", "known"),
    [
        ((0, 0xFFFFF, 1 << 31), True),
        ((0, 0x100000, 1 << 31), False),
        ((0, 0xC06F0 | 1 << 31, 1 << 31), False),
        ((1, 0xC06F0, 1 << 31), False),
        ((0, 0xC06F0, 1 << 31 | 1), False),
    ],
)
def test_a_model_is_read_up_to_the_extended_family_and_beside_known_words(
    words: tuple[int, int, int], known: bool
) -> None:
    """One that is not known may be the denied one; one that is known is another one."""
    intel = extended()
    intel.body["init_tee_fmspc"] = struct.pack("<3I", *words)
    origin = [b"".join(intel.body[name] for name in ORIGIN).hex()]
    assert judged(intel, (DENIED,), origin=origin) == (set() if known else {"platform_denied"})


def test_no_origin_is_stated_where_nothing_gives_it_a_meaning() -> None:
    intel = extended()
    intel.body |= {name: bytes(len(intel.body[name])) for name in ORIGIN}
    assert judged(intel) == set()
    intel.body["td_attributes"] = SERVTD_EXT
    assert judged(intel) == {"td_attributes_not_accepted", "td_origin_not_accepted"}
    exact = SERVTD_EXT.hex()
    assert judged(intel, attributes_eq=exact) == {"td_origin_not_accepted"}
    stated = extended()
    stated.body["td_attributes"] = SERVTD_EXT
    assert judged(stated, attributes_eq=exact) == set()


def test_a_report_that_hides_the_origin_it_keeps_account_of_is_refused() -> None:
    intel = Intel(version=5)
    intel.body["td_attributes"] = SERVTD_EXT
    assert judged(intel, attributes_eq=SERVTD_EXT.hex()) == {"td_origin_not_accepted"}


@pytest.mark.parametrize("offset", [648, 649, 681, 729, 777, 785, 801, 817, 829, 877])
def test_every_member_of_the_extension_is_signed(offset: int) -> None:
    intel = extended()
    at = 54 + offset
    intel.edits["quote"] = lambda raw: raw[:at] + bytes((raw[at] ^ 1,)) + raw[at + 1 :]
    examined = SCHEME.examine(intel.question())
    assert not examined.authentic
    assert "signature_invalid" in {reason.code for reason in examined.reasons}


@pytest.mark.parametrize("length", [TD15EX_LEN - 1, TD15EX_LEN + 1, 648])
def test_another_length_than_the_extended_report_has_is_refused(length: int) -> None:
    quote = extended().quote()
    changed = quote[:50] + length.to_bytes(4, "little") + quote[54:]
    with pytest.raises(MalformedError, match="body length"):
        parse_quote(changed)


def test_a_body_of_the_next_type_is_refused() -> None:
    quote = extended().quote()
    with pytest.raises(MalformedError, match="body type"):
        parse_quote(quote[:48] + b"\x05" + quote[49:])

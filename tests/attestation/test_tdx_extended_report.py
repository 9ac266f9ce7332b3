"""Extended TD reports 1.5 (body type 4 of quote v5): read, verified, and judged like the others."""

from __future__ import annotations

import dcap_qvl  # type: ignore[import-untyped]
import pytest
from simulators.intel import Intel

from attestation.formats.dcap_bodies import TD15EX_LEN
from attestation.formats.dcap_quote import parse_quote
from attestation.ledger import Ledger
from attestation.members import Members
from attestation.schemes.tdx import SCHEME
from wire.errors import MalformedError, PolicyError

HASHES = ("init_service_td_hash", "cur_service_td_hash")


def extended() -> Intel:
    return Intel(version=5).extended()


def judged(intel: Intel) -> set[str]:
    """Reasons of the state, under a rule that leaves the image open."""
    examined = SCHEME.examine(intel.question())
    assert examined.authentic, examined.reasons
    required, optional = SCHEME.rule_keys
    members = Members(
        {"image": "any", "tcb": {"statuses": ["UpToDate"]}, "platform": {}},
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

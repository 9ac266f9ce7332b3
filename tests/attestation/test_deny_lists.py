"""Deny lists find what they name, however it is spelled, and refuse evidence that hides a name."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from simulators.gpu_tee import SnpGpuTee
from simulators.hardware_tee import AzureSnpTee, HardwareTee, NitroTee, QuoteTee, SnpTee, TdxTee
from simulators.nvidia_device import name
from simulators.tee import SoftwareTee
from simulators.tpm import TpmTee
from simulators.verdicts import accepted, refused_for, rejected

from attestation.hardware import SHOWS, check_identities
from attestation.proof import canonical_identity
from attestation.rules.hardware import GPU_KIND
from attestation.schemes import SCHEMES
from wire.errors import AttestationError, PolicyError

if TYPE_CHECKING:
    from simulators.tee import Tee

OTHER_CHIP = "ab" * 64
OTHERS: dict[str, str] = {
    "chip_ids": OTHER_CHIP, "ppids": "ab" * 16, "serials": "abcdef", "keys": "ab" * 32,
}  # fmt: skip


def provided(tee: SnpTee) -> SnpTee:
    """The same worker at a provider that masks its chips and signs with its own key."""
    chip_id = tee.chip.facts.chip_id
    tee.chip, tee.statements["ca"] = tee.amd.provider(), tee.amd.asvk
    assert chip_id != bytes(64) == tee.chip.facts.chip_id
    tee.rule |= {"signer": ["vlek"], "csp_in": "any"}
    return tee


# ---------------------------------------------------------------- what hides its name


@pytest.mark.parametrize("make", [SnpTee, AzureSnpTee])
def test_a_masked_chip_is_refused_where_the_policy_denies_chips(make: type[SnpTee]) -> None:
    accepted(provided(make()).appraise())
    tee = provided(make())
    tee.demands["deny"] = {"chip_ids": [OTHER_CHIP]}
    verdict = refused_for(tee.appraise(), "denied")
    assert "chip_id: found none, expected one" in verdict.reasons[0].detail


@pytest.mark.parametrize("member", ["ppids", "serials", "keys", "measurements"])
def test_a_masked_chip_is_accepted_where_it_denies_other_things(member: str) -> None:
    tee = provided(SnpTee())
    others = {**OTHERS, "measurements": "sha256:" + "ab" * 32}
    tee.demands["deny"] = {member: [others[member]]}
    accepted(tee.appraise())


def test_zeros_on_the_list_deny_what_is_masked_and_nothing_else() -> None:
    tee = provided(SnpTee())
    tee.demands["deny"] = {"chip_ids": ["00" * 64]}
    refused_for(tee.appraise(), "denied")
    tee = SnpTee()
    tee.demands["deny"] = {"chip_ids": ["00" * 64]}
    accepted(tee.appraise())


def test_a_platform_whose_ppid_is_zero_is_refused_where_the_policy_denies_ppids() -> None:
    tee = TdxTee()
    tee.intel.ppid = bytes(16)
    accepted(tee.appraise())
    tee = TdxTee()
    tee.intel.ppid = bytes(16)
    tee.demands["deny"] = {"ppids": [OTHERS["ppids"]]}
    verdict = refused_for(tee.appraise(), "denied")
    assert "ppid: found none, expected one" in verdict.reasons[0].detail


@pytest.mark.parametrize("make", [SnpTee, AzureSnpTee, TdxTee, NitroTee, QuoteTee, TpmTee])
def test_a_list_that_names_others_of_every_class_refuses_no_honest_worker(make: type[Tee]) -> None:
    tee = make()
    tee.demands["deny"] = {member: [value] for member, value in OTHERS.items()}
    accepted(tee.appraise())


def test_one_gpu_of_two_that_hides_its_serial_number_is_refused() -> None:
    """The other's beside it is no excuse."""
    for deny in ({}, {"keys": [OTHERS["keys"]]}, {"serials": [OTHERS["serials"]]}):
        tee = SnpGpuTee()
        tee.gpus[1].leaf = {"subject": name("GH100 A01 GSP FMC LF", "00")}
        tee.demands["deny"] = deny
        if "serials" in deny:
            verdict = refused_for(tee.appraise(), "denied")
            assert verdict.reasons[0].step == "23 GPU deny list"
        else:
            accepted(tee.appraise())


@pytest.mark.parametrize("shows", [("chip_id",), ("key", "chip_id")])
def test_a_class_counts_only_where_the_list_and_the_kind_have_it(shows: tuple[str, ...]) -> None:
    key = "key:" + "1" * 64
    none = frozenset[str]()
    assert check_identities([key], none, shows) == "1 identities, none denied"
    assert check_identities([key], frozenset({"ppid:1", "key:2"}), shows)
    for found in ([key], [key, "chip_id:" + "0" * 128], []):
        with pytest.raises(AttestationError) as caught:
            check_identities(found, frozenset({"chip_id:1"}), shows)
        assert caught.value.reasons == ("denied",)


def test_every_kind_a_rule_can_name_says_what_it_shows() -> None:
    carrying = {kind for kind, scheme in SCHEMES.items() if scheme.carries is not None}
    assert SHOWS.keys() == carrying | {GPU_KIND}
    assert all("key" in classes for classes in SHOWS.values())


@pytest.mark.parametrize("make", [SnpTee, AzureSnpTee, TdxTee, NitroTee, QuoteTee])
def test_genuine_evidence_shows_every_class_that_is_claimed_of_its_kind(
    make: type[HardwareTee],
) -> None:
    tee = make()
    found = {name.partition(":")[0] for name in accepted(tee.appraise()).identities}
    assert found == set(SHOWS[tee.kind])


# ---------------------------------------------------------------- keys of TPMs in a file


@pytest.mark.parametrize("which", ["ak_key", "ek_key"])
def test_each_key_of_a_tpm_can_be_denied(which: str) -> None:
    tee = TpmTee()
    spki = (
        getattr(tee, which)
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    tee.demands["deny"] = {"keys": [hashlib.sha256(spki).hexdigest()]}
    verdict = rejected(tee.appraise())
    assert set(verdict.codes) == {"denied"}


def test_what_only_software_vouches_for_shows_no_platform() -> None:
    tee = SoftwareTee()
    tee.demands["deny"] = {member: [value] for member, value in OTHERS.items()}
    accepted(tee.appraise())


# ---------------------------------------------------------------- spelling


@pytest.mark.parametrize(
    ("number", "spelled"),
    [
        (0xABCDEF, ["abcdef", "00abcdef", "0abcdef", "0000000000abcdef"]),
        (0x9A, ["9a", "009a", "0000009a"]),
        (0x7, ["7", "07", "00000007"]),
        (0x0ABC, ["abc", "0abc", "000abc"]),
        (0x9123456789, ["9123456789", "009123456789"]),
        (
            0x1234567890ABCDEF << 80,
            [f"{0x1234567890ABCDEF << 80:x}", f"{0x1234567890ABCDEF << 80:040x}"],
        ),
    ],
)
def test_a_serial_number_is_denied_however_it_is_padded(number: int, spelled: list[str]) -> None:
    for value in spelled:
        tee = TdxTee()
        tee.intel.pck.serial = number
        tee.demands["deny"] = {"serials": [value]}
        refused_for(tee.appraise(), "denied")
    for value in (f"{number + 1:x}", f"{number:x}1", f"1{number:x}"):
        tee.demands["deny"] = {"serials": [value]}
        accepted(tee.appraise())


@pytest.mark.parametrize("padding", ["", "0", "00", "0" * 20])
def test_so_is_a_gpus(padding: str) -> None:
    tee = SnpGpuTee()
    tee.demands["deny"] = {"serials": [padding + tee.gpus[1].serial.lower().lstrip("0")]}
    refused_for(tee.appraise(), "denied")
    tee = SnpGpuTee()
    chip = f"{tee.gpus[0].brom.certificate.serial_number:x}"
    tee.demands["deny"] = {"chip_ids": [padding + chip]}
    refused_for(tee.appraise(), "denied")


@pytest.mark.parametrize("value", ["", "0x9a", "9A", "9a:bc", "-1", " 9a", "g", "1" * 129])
def test_what_is_no_number_in_lower_case_hex_is_refused(value: str) -> None:
    for member in ("serials", "chip_ids"):
        tee = SoftwareTee()
        tee.demands["deny"] = {member: [value]}
        with pytest.raises(PolicyError, match=f"policy.deny.{member}"):
            tee.policy()


@pytest.mark.parametrize("value", ["ab", "ab" * 3, "abc" * 3, "ab" * 65])
def test_keys_and_ppids_are_whole_bytes(value: str) -> None:
    for member in ("keys", "ppids"):
        tee = SoftwareTee()
        tee.demands["deny"] = {member: [value]}
        with pytest.raises(PolicyError, match=f"policy.deny.{member}"):
            tee.policy()


def test_classes_are_not_mixed_up() -> None:
    assert canonical_identity("serial:00ab") == canonical_identity("serial:ab") == "serial:ab"
    assert canonical_identity("chip_id:ab") != canonical_identity("serial:ab")
    assert canonical_identity("serial:ab") != canonical_identity("serial:ab00")
    assert canonical_identity("serial:0000") == "serial:"

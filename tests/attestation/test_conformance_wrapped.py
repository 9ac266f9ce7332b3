"""GPU evidence as other tools wrap it: read whole, or not at all.

The samples are genuine, from $ANCHORHOLD_VECTORS, and named by a simulated TPM.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from simulators.nras import NrasService
from simulators.nvidia import Nvidia
from simulators.vendor_samples import (
    FOLDER,
    GENUINE,
    GPU,
    OTHER,
    SWITCH,
    bound,
    codes,
    file,
    item,
    needs_samples,
    verdict,
)

from attestation.conformance.gpu_file import FOUND_MAX, SHORT_MAX, UNREAD_MAX
from attestation.conformance.wrapped import (
    FILE_MAX,
    ITEMS_MAX,
    MEMBERS_MAX,
    contents,
    opened,
    parts,
    spelled,
)
from wire.errors import MalformedError


@needs_samples
def test_evidence_in_the_wrappings_of_other_tools_is_read() -> None:
    chain = file(GPU, "cert_chain")
    raw = file(GPU, "evidence")
    for files in (
        {"gpu": base64.b64encode(raw), "gpu_chain": chain},
        {"gpu": base64.encodebytes(raw), "gpu_chain": base64.b64encode(chain)},
        {"gpu": base64.urlsafe_b64encode(raw).rstrip(b"="), "gpu_chain": chain},
        {"gpu": raw.hex().encode(), "gpu_chain": chain},
        {"gpu": b"0x" + raw.hex().upper().encode() + b"\n", "gpu_chain": chain},
        {"gpu": json.dumps(item()).encode()},
        {"gpu": json.dumps({"gpu": [item()], "of": "one node"}).encode()},
        {"gpu": json.dumps({"nvidia_payload": json.dumps([item()])}).encode()},
        {"gpu": json.dumps({"gpu_0": item(), "gpu_1": item(OTHER)}).encode()},
        {"gpu": base64.b64encode(json.dumps([item()]).encode())},
        {"gpu": json.dumps({"report": raw.hex(), "chain": chain.decode()}).encode()},
    ):
        found = bound("gpu", **files)
        assert (verdict(found), found.ignored) == (GENUINE, ()), files["gpu"][:40]


@needs_samples
def test_a_part_that_does_not_parse_is_not_passed_over() -> None:
    genuine = {"gpu": [item()], "notes": ["none"]}
    assert verdict(bound("gpu", gpu=json.dumps(genuine).encode())) == GENUINE
    for other in ([{"evidence": "AA", "certificate": "AA"}], {"evidence_list": []}):
        data = json.dumps({**genuine, "nvswitch": other}).encode()
        named = {"evidence_malformed", "gpu_not_bound_to_cpu"}
        assert verdict(bound("gpu", gpu=data)) == (True, False, named)


@needs_samples
def test_a_member_that_is_there_twice_is_none() -> None:
    one = json.dumps([item()])
    data = f'{{"gpu": {one}, "gpu": {one}}}'.encode()
    assert bound("gpu", gpu=data).accepted is False


@needs_samples
def test_wrapped_evidence_under_any_name_is_a_gpus() -> None:
    raw = file(GPU, "evidence")
    for data in (
        base64.b64encode(raw),
        base64.encodebytes(raw),
        raw.hex().encode(),
        json.dumps({"gpu": [item()]}).encode(),
        json.dumps({"a": 1, "gpu": {"evidences": []}}).encode(),
        json.dumps({"nvidia_payload": json.dumps([item()])}).encode(),
        json.dumps([raw.hex()]).encode(),
        base64.b64encode(json.dumps({"gpu": [item()]}).encode()),
    ):
        found = bound("note", binding="extra_data == SHA-256(text)", note=b"n",
                      inputs={"text": b"n".hex()}, accelerator=data)  # fmt: skip
        assert verdict(found) == (True, False, {"gpu_not_bound_to_cpu"}), data[:40]


@pytest.mark.parametrize(
    ("data", "inside"),
    [
        (b"", []),
        (b"\xff\x00", []),
        (b"AAAA", []),  # too short to be evidence
        (b"A" * 65, []),  # one digit too many
        (b"QUFB" * 16, [b"AAA" * 16]),
        (b"QUFB" * 15 + b"QUE", []),
        (b"aG9sYQ" + b"A" * 64, [b"hola" + bytes(48)]),
        (b"ab" * 40, [b"\xab" * 40]),
        (b'{"a": "x", "b": [1], "c": 2, "d": null}', [b"x", b"[1]"]),
        (b'{"a": "x", "a": "y"}', []),
        (b'["x", {}]', [b"x", b"{}"]),
        (b'["\\ud800"]', [b"?"]),
        (b"[" * 5000 + b"]" * 5000, []),
        (b"[[" + b"1" * 5000 + b"]]", [b'["LongNumber"]']),
        (b'{"a": "' + b"ab" * 40 + b'"}', [b"ab" * 40, b"\xab" * 40]),
    ],
)
def test_what_a_file_holds_inside(data: bytes, inside: list[bytes]) -> None:
    assert list(contents(data)) == [data, *inside]


def test_of_many_members_the_first_are_looked_at() -> None:
    data = json.dumps(["x"] * (MEMBERS_MAX + 1)).encode()
    assert len(list(contents(data))) == 1 + MEMBERS_MAX


# ---- a file that wraps evidence is read whole


def damaged(name: str = OTHER) -> bytes:
    """A report that its device did not sign."""
    raw = file(name, "evidence")
    return raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:]


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def named(**members: Any) -> tuple[bool | None, bool | None, set[str]]:
    """The verdict on one file with a genuine device and these members beside it."""
    return verdict(bound("gpu", gpu=json.dumps({"gpu_0": item(), **members}).encode()))


MALFORMED = (True, False, {"evidence_malformed", "gpu_not_bound_to_cpu"})


@needs_samples
def test_a_second_device_counts_wherever_it_stands() -> None:
    forged = {"evidence": text(damaged()), "certificate": item(OTHER)["certificate"]}
    assert named(gpu_1=item(OTHER)) == GENUINE
    assert "signature_invalid" in named(gpu_1=forged)[2]
    for members in (
        {"gpu_1": text(file(OTHER, "evidence")[:-200])},
        {"gpus": {"gpu_1": text(damaged())}},
        {"gpus": {"gpu_1": item(OTHER)}},
        {"gpus": [[forged]]},
        {"nodes": {"n1": [forged]}},
        {"gpu_1": text(text(damaged()).encode())},
        {"gpu_1": json.dumps({"gpu": [forged]})},
        {"gpu_1": base64.encodebytes(damaged()).decode() + "!"},
        {"gpus": [text(damaged())]},
        {"gpus": [[{"evidence": "AA", "certificate": "AA"}]]},
    ):
        assert named(**members) == MALFORMED, str(members)[:60]
    for key in (text(damaged()), text(damaged()[:-200])):
        assert named(**{key: 1})[1] is False


@needs_samples
def test_a_device_behind_many_members_is_not_passed_over() -> None:
    forged = {"evidence": text(damaged()), "certificate": item(OTHER)["certificate"]}
    numbers = {str(number): number for number in range(MEMBERS_MAX - 2)}
    assert named(**numbers) == GENUINE
    assert "signature_invalid" in named(**numbers, gpu_1=forged)[2]
    assert named(**numbers, more=1, gpu_1=forged) == MALFORMED


@needs_samples
def test_what_stands_beside_wrapped_evidence_costs_it_nothing() -> None:
    chain = file(GPU, "cert_chain")
    members: dict[str, Any] = {
        "nonce": "93" * 32,
        "count": 1,
        "ok": True,
        "none": None,
        "load": 0.5,
        "notes": ["none", {"by": "a person", "words": ["some " * 40]}],
        "switches": [],
        "digests": {"sha512": "ab" * 64},
        "chain": chain.decode(),
        "chains": [chain.decode(), text(chain), [chain.hex()]],
        "all": chain.decode() * 3,
        "root": text((FOLDER / "roots" / "nvidia-device-root.pem").read_bytes()),
    }
    vendor = Nvidia()
    device = vendor.gpu()
    members["rim"] = vendor.manifest(device, "driver").decode()
    members["rims"] = [text(vendor.manifest(device, "vbios"))]
    members["ocsp"] = [text(answer) for answer in vendor.revocation(device)]
    for name, member in members.items():
        assert named(**{name: member}) == GENUINE, name
    assert named(**members) == GENUINE


@needs_samples
@pytest.mark.parametrize(
    "member", ["x" * 1025, "1" * 30, '{"evidences": []}', base64.b64encode(b"\x30" * 2000).decode()]
)
def test_what_may_be_evidence_and_is_not_read_is_not_accepted(member: str) -> None:
    assert named(note=member if not member.isdigit() else int(member)) == MALFORMED


@needs_samples
def test_a_device_that_is_spelled_in_short_pieces_is_not_passed_over() -> None:
    raw = damaged(SWITCH)
    words = text(raw)
    lines = [words[at : at + 76] for at in range(0, len(words), 76)]
    for members in (
        {"gpu_1": list(raw)},
        {"gpu_1": {"type": "Buffer", "data": list(raw)}},
        {"gpu_1": lines},
        {"gpu_1": {str(number): line for number, line in enumerate(lines)}},
        {"gpu_1": dict.fromkeys(lines, True)},
        {"gpu_1": [line.encode().hex() for line in lines[:10]]},
        {"gpu_1": [{"report": lines, "certificate": "see gpu_0"}]},
        {f"gpu_1_{number}": line for number, line in enumerate(lines)},
        dict.fromkeys(lines, 1),
        {"gpu_1": chr(0x10FFFF) * (SHORT_MAX // 4 + 1)},
        {"gpu_1": float("0." + "1" * 15)}
        | {f"n{at}": [0.1234567890123456] * 40 for at in range(3)},
    ):
        assert named(**members) == MALFORMED, str(members)[:60]


@needs_samples
@pytest.mark.parametrize(
    ("member", "more"),
    [
        ("x" * SHORT_MAX, 1),
        (["x" * (SHORT_MAX - 1), 1], 1),
        (["x" * (SHORT_MAX - 4), True], 1),
        ({"key": "x" * (SHORT_MAX - 3)}, 1),
        ([[], {}, "x" * SHORT_MAX], 1),
    ],
)
def test_as_much_as_is_too_short_for_a_report_may_stand_in_a_member(member: Any, more: int) -> None:
    assert named(a=member) == GENUINE
    assert named(a=[member, more]) == MALFORMED


@needs_samples
def test_as_much_as_is_too_short_for_a_report_may_stand_in_a_file() -> None:
    keys = len("gpu_0") + len("a") + len("b") + len("c")
    members = {"a": "x" * SHORT_MAX, "b": "x" * (UNREAD_MAX - SHORT_MAX - keys), "c": ""}
    chain = file(GPU, "cert_chain").decode()
    assert named(**members) == GENUINE
    assert named(**{**members, "c": chain}) == GENUINE
    assert named(**{**members, "c": "x"}) == MALFORMED


@needs_samples
def test_a_number_of_very_many_digits_is_no_number() -> None:
    one = json.dumps(item())
    for digits, read in (("5" * 22, True), ("5" * 23, False), ("5" * 2000, False)):
        whole = f'{{"gpu_0": {one}, "load": 0.{digits}}}'.encode()
        assert verdict(bound("gpu", gpu=whole)) == (GENUINE if read else MALFORMED)


# ---- what stands beside a remote service's word


def beside(service: NrasService, **members: Any) -> tuple[bool | None, bool | None, set[str]]:
    """The verdict on one bundle in an object with these members."""
    raw = json.dumps({"detached_eat": json.loads(service.bundle()), **members}).encode()
    return verdict(bound("eat", now=service.now + 1, eat=raw, jwks=service.jwks()))


def test_a_bundle_as_nvidias_command_line_writes_it_is_read() -> None:
    service = NrasService(devices=8)
    claims = [dict(device) for device in service.devices.values()]
    written = {"claims": claims, "result_code": 0, "result_message": "Ok"}
    assert beside(service, **written) == GENUINE
    assert beside(service, claims=[], result_message="Ok") == GENUINE
    assert beside(service, claims=[{**claims[0], "x-nvidia-more": "x" * 100}]) == GENUINE


@needs_samples
def test_a_device_beside_a_bundle_is_not_passed_over() -> None:
    service = NrasService()
    forged = {"evidence": text(damaged()), "certificate": item(OTHER)["certificate"]}
    for name in ("evidences", "devices"):
        refuted = beside(service, **{name: [forged]})
        assert (refuted[:2], "signature_invalid" in refuted[2]) == ((False, False), True)
    for members in (
        {"claims": [{"evidence": text(damaged())}]},
        {"claims": [{"evidence": list(damaged())}]},
        {"claims": {"evidence": text(damaged())}},
        {"claims": text(damaged())[:-100]},
        {"note": text(damaged())[:-100]},
        {"result_message": "x" * (SHORT_MAX + 1)},
        {"a": "x" * SHORT_MAX, "b": "x" * SHORT_MAX},
        {"nodes": {"one": {"evidences": [forged]}}},
    ):
        assert beside(service, **members) == MALFORMED, str(members)[:60]


def test_a_bundle_in_a_member_is_read_as_a_whole_too() -> None:
    service = NrasService()
    bundle = json.loads(service.bundle())
    for more, found in (
        ({}, GENUINE),
        ({"evidences": [{"evidence": "AA", "certificate": "AA"}]}, MALFORMED),
    ):
        raw = json.dumps({"nras": {"detached_eat": bundle, **more}}).encode()
        one = bound("eat", now=service.now + 1, eat=raw, jwks=service.jwks())
        assert verdict(one) == found


@needs_samples
@pytest.mark.parametrize(
    "whole",
    ["[{}]", '{{"gpu": [{}]}}', '{{"gpu_0": {}}}', '{{"a": [1], "gpu": {{"evidences": [{}]}}}}'],
)
def test_of_two_reports_under_one_key_neither_is_taken(whole: str) -> None:
    genuine, other = item(), item(OTHER)
    once = json.dumps(genuine)
    assert verdict(bound("gpu", gpu=whole.format(once).encode())) == GENUINE
    twice = json.dumps({"evidence": other["evidence"]})[:-1] + ", " + once[1:]
    assert verdict(bound("gpu", gpu=whole.format(twice).encode())) == MALFORMED


@needs_samples
def test_of_one_sample_only_so_many_reports_are_examined() -> None:
    files = {
        f"gpu_{at}": json.dumps([text(damaged())] * (FOUND_MAX // 2)).encode() for at in range(3)
    }
    chain = file(OTHER, "cert_chain")
    two = bound(
        "gpu_0", "gpu_1", gpu_chain=chain, **{key: files[key] for key in ("gpu_0", "gpu_1")}
    )
    assert "evidence_malformed" not in codes(two)
    assert "evidence_malformed" in codes(bound(*files, gpu_chain=chain, **files))


@needs_samples
def test_each_report_of_a_list_counts_as_one() -> None:
    listed = json.dumps([item(OTHER)] * 16)
    lists = {f"gpu_{at}": listed.encode() for at in range(FOUND_MAX // 16)}
    assert set(codes(bound(*lists, **lists))) == {"device_repeated"}
    lists["gpu_x"] = json.dumps([item()]).encode()
    assert "evidence_malformed" in codes(bound(*lists, **lists))


@pytest.mark.parametrize(
    ("data", "opens"),
    [
        (b'{"gpu": "x"}', True),
        (b'{"gpu": "x"}' + b" " * (FILE_MAX - 12), True),
        (b'{"gpu": "x"}' + b" " * (FILE_MAX - 11), False),
        (b"[" + b"1," * (ITEMS_MAX - 1) + b'"x"]', True),
        (b"[" + b"1," * ITEMS_MAX + b'"x"]', False),
        ((b"[" + b"1," * ITEMS_MAX + b'"x"]').ljust(FILE_MAX), False),
    ],
)
def test_files_larger_than_any_evidence_are_not_opened(data: bytes, opens: bool) -> None:
    if opens:
        assert opened(data)
    else:
        with pytest.raises(MalformedError):
            opened(data)
    assert next(contents(data)) == data


def test_long_files_are_not_decoded() -> None:
    assert len(spelled(b"ab" * (FILE_MAX // 2))) == 2
    assert len(spelled(b"ab" * (FILE_MAX // 2 + 1))) == 1


def test_all_that_an_object_or_an_array_says_is_its_parts() -> None:
    said = b'{"a": ["x", 1], "b": null}'
    assert parts(said) == ("a", "b", ["x", 1], None)
    assert parts(base64.b64encode(said.ljust(60))) == parts(said.ljust(60).hex().encode())
    assert parts(base64.b64encode(said.ljust(60))) == parts(said)
    assert parts(b'["x", 1]') == ("x", 1)


@pytest.mark.parametrize("data", [b"5", b'"text"', b"null", b"true", b"text", b"", b"[0,]"])
def test_what_is_neither_has_no_parts(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parts(data)

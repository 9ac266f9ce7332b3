"""A file of the GPUs' side: what is evidence in it, how much that is, and what may stand beside.

The reports are genuine, from $ANCHORHOLD_VECTORS; bundles are a simulated service's.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from simulators.nras import NrasService
from simulators.vendor_samples import FOLDER, GPU, GPUS, OTHER, file, item, needs_samples

from attestation.conformance.gpu_file import (
    EAT,
    LIST,
    SHORT_MAX,
    SINGLE,
    UNREAD_MAX,
    count,
    evidence_in,
)
from wire.errors import MalformedError


def kinds(document: Any, room: int = 8) -> list[str]:
    """The kinds of the evidence in a JSON document; [] where it is refused."""
    try:
        return [kind for kind, _ in evidence_in(json.dumps(document).encode(), room)]
    except MalformedError:
        return []


def word(service: NrasService, **members: Any) -> dict[str, Any]:
    """A bundle as the member of an object with others."""
    return {"detached_eat": json.loads(service.bundle()), **members}


@needs_samples
def test_reports_bundles_and_the_devices_of_a_list_count_each() -> None:
    listed, report = file(GPUS, "evidence_list"), file(GPU, "evidence")
    devices = json.loads(listed)
    devices = devices["evidence_list"] if isinstance(devices, dict) else devices
    reports = {"a": base64.b64encode(report).decode(), "b": file(OTHER, "evidence").hex()}
    bundle = NrasService(devices=4).bundle()
    for data, kind, many in (
        (listed, [LIST], len(devices)),
        (report, [SINGLE], 1),
        (bundle, [EAT], 1),
        (json.dumps(reports).encode(), [SINGLE] * 2, 2),
        (json.dumps({**reports, "c": devices}).encode(), [SINGLE] * 2 + [LIST], 2 + len(devices)),
    ):
        found = evidence_in(data, many)
        assert ([name for name, _ in found], count(found)) == (kind, many)
        with pytest.raises(MalformedError, match="more than 128 reports"):
            evidence_in(data, many - 1)


@needs_samples
def test_what_vouches_counts_for_nothing_and_makes_room_for_nothing() -> None:
    root = (FOLDER / "roots" / "nvidia-device-root.pem").read_text()
    assert kinds({"a": item(), "b": [root, root, "x" * SHORT_MAX]}) == [LIST]
    assert kinds({"a": item(), "b": [1, "x" * SHORT_MAX, root, root]}) == []
    assert kinds({"a": item(), "b": ["x" * SHORT_MAX, root[:-1] + "x"]}) == []


@needs_samples
def test_an_outline_in_a_short_text_is_seen_in_each_spelling_of_it() -> None:
    outline = '{"evidences": []}'
    for text in (
        outline,
        outline.ljust(SHORT_MAX),
        base64.b64encode(outline.ljust(60).encode()).decode(),
        outline.ljust(60).encode().hex(),
    ):
        assert kinds({"a": item(), "b": text}) == [], text[:40]
    assert kinds({"a": item(), "b": base64.b64encode(b"{}".ljust(60)).decode()}) == [LIST]


def test_beside_a_bundle_stands_as_much_as_in_any_file() -> None:
    service = NrasService()
    room = UNREAD_MAX - SHORT_MAX - len("a") - len("b")
    assert kinds(word(service, a="x" * SHORT_MAX, b="x" * room)) == [EAT]
    assert kinds(word(service, a="x" * SHORT_MAX, b="x" * (room + 1))) == []
    assert kinds(word(service, a="x" * (SHORT_MAX + 1))) == []
    # In a member, too, where the object is no file of its own.
    assert kinds({"nras": word(service, a="x" * SHORT_MAX, b="x" * room)}) == [EAT]
    assert kinds({"nras": word(service, a="x" * SHORT_MAX, b="x" * (room + 1))}) == []


def test_claims_that_some_devices_token_states_are_copies() -> None:
    service = NrasService(devices=4)
    for number, claims in enumerate(service.devices.values()):
        claims["x-nvidia-note"] = str(number) * SHORT_MAX
    copies = [dict(claims) for claims in service.devices.values()]
    assert kinds(word(service, claims=copies)) == [EAT]
    changed = [{**claims, "x-nvidia-note": "other" * SHORT_MAX} for claims in copies]
    assert kinds(word(service, claims=changed)) == []
    renamed = [{"x-nvidia-word": claims["x-nvidia-note"]} for claims in copies]
    assert kinds(word(service, claims=renamed)) == []
    for claims in ([copies[0], "text"], [copies[0], 1], copies[0]):
        assert kinds(word(service, claims=claims)) == [], str(claims)[:40]


@pytest.mark.parametrize("claims", [None, 5, "none", [], [{}], {}, ["text", {"a": 1}], [["a"]]])
def test_short_claims_of_any_form_may_stand_beside_a_bundle(claims: Any) -> None:
    assert kinds(word(NrasService(), claims=claims)) == [EAT]


@pytest.mark.parametrize("number", ["0." + "5" * 23, "5" * 25, '"\\ud800"'])
def test_what_readers_read_differently_may_not_stand_beside_a_bundle(number: str) -> None:
    raw = json.dumps(word(NrasService(), load=0)).encode()
    assert raw.endswith(b'"load": 0}')
    with pytest.raises(MalformedError):
        evidence_in(raw[:-2] + number.encode() + b"}", 8)

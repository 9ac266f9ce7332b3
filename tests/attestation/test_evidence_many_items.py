"""Evidence is a few long texts: one of many small items is refused unparsed, whatever its form.

Whoever may connect sends some, and a parser holds up all threads while it makes the items.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from simulators.nvidia import Nvidia
from simulators.tee import SoftwareTee
from simulators.tpm import TpmTee

from attestation.evidence import BODY_ITEMS_MAX
from attestation.formats import software, tpm
from attestation.formats.container import encode_container, parse_container
from attestation.formats.gpu_list import ENTRIES_MAX, LIST_ITEMS_MAX, parse_list
from attestation.measurement import PARTS_MAX
from attestation.schemes import SCHEMES
from wire.errors import MalformedError
from wire.ids import sha256_tag

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS = {f"part_{number}": sha256_tag(b"") for number in range(PARTS_MAX)}


def container(raw: bytes) -> object:
    return parse_container(raw, ("report",), ())


def statement(raw: bytes) -> object:
    return software.parse_body(software.encode_body(raw, bytes(64)))


BODIES = [tpm.parse_body, software.parse_body, container, statement]


@pytest.mark.parametrize("parse", BODIES, ids=["tpm2", "software", "container", "statement"])
@pytest.mark.parametrize("item", ["0", "{}", "[]", '""', "1.5", "null"])
def test_a_body_of_many_items_is_refused_before_its_members_are_looked_at(
    parse: Callable[[bytes], object], item: str
) -> None:
    raw = f'{{"a":[{",".join([item] * BODY_ITEMS_MAX)}]}}'.encode()
    with pytest.raises(MalformedError, match=f"at most {BODY_ITEMS_MAX} items"):
        parse(raw)


def test_a_list_of_gpus_of_many_items_is_refused_before_its_members_are_looked_at() -> None:
    with pytest.raises(MalformedError, match=f"at most {LIST_ITEMS_MAX} items"):
        parse_list(b"[" + b"0," * LIST_ITEMS_MAX + b"0]")


def test_the_tpm_evidence_with_most_items_is_read() -> None:
    tee = TpmTee()
    members = json.loads(tee.evidence(tee.binding()).body)
    members["pcrs"]["sha256"] = {str(register): "00" * 32 for register in range(tpm.PCR_COUNT)}
    members["chain"] = members["chain"][:1] * tpm.CHAIN_MAX or ["MAA"] * tpm.CHAIN_MAX
    members["parts"] = PARTS
    found = tpm.parse_body(json.dumps(members, indent=2).encode())
    assert (len(found.pcrs), len(found.chain), len(found.parts)) == (24, 4, PARTS_MAX)


def test_the_statement_with_most_items_is_read() -> None:
    tee = SoftwareTee()
    tee.parts = dict(PARTS)
    assert software.parse_body(tee.evidence(tee.binding()).body).parts == PARTS


@pytest.mark.parametrize("kind", SCHEMES)
def test_the_container_with_most_items_is_read(kind: str) -> None:
    required, optional = SCHEMES[kind].evidence
    roles = dict.fromkeys((*required, *optional), b"\0")
    found = parse_container(encode_container(roles, PARTS), tuple(roles), ())
    assert (found.roles, found.parts) == (roles, PARTS)


def test_the_list_of_gpus_with_most_items_is_read() -> None:
    nonce = bytes(32)
    entry = Nvidia().gpu("HOPPER").entry(nonce) | {
        "arch": "HOPPER", "version": "1.0", "uuid": "GPU-0, of a board, with commas",
        "driver_version": "590.1, open", "vbios_version": "96.00",
    }  # fmt: skip
    whole = {"nonce": nonce.hex(), "arch": "HOPPER", "evidence_list": [entry] * ENTRIES_MAX}
    assert len(parse_list(json.dumps(whole, indent=1).encode())) == ENTRIES_MAX

"""The posture fields: complete, encodable, and telling what was not done."""

import json

import pytest

from attestation.posture import Posture, encode_posture, parse_record
from enclave_worker.sandbox import confine, posture
from enclave_worker.sandbox.outcome import applied, refused, unavailable

pytestmark = pytest.mark.sandbox


def test_a_stage_left_out_weakens_the_record_instead_of_shortening_it():
    fields = posture.collect()
    assert tuple(fields) == posture.FIELDS
    assert "applied" not in {control.state for control in fields.values()}


def test_a_field_nobody_knows_is_a_bug():
    with pytest.raises(ValueError, match="not posture fields"):
        posture.collect({"sekcomp": applied()})


def test_outcomes_carry_the_errno_and_its_words():
    assert unavailable(38).detail == "Function not implemented"
    assert refused(1).errno == 1
    assert applied("7").state == "applied"


def test_a_fully_confined_process_reports_every_control(child, needs_landlock):
    """The record is made after the filter is in place: collecting it opens nothing."""
    facts = child(
        """
        from pathlib import Path
        from enclave_worker.sandbox import confine, posture
        from enclave_worker.sandbox.memory import SecretBytes
        early = confine.confine_early([Path(sys.base_prefix), Path(sys.prefix)])
        seed = SecretBytes.random(32)
        late = confine.confine_late()
        fields = posture.collect(early, late, secrets=[seed])
        report(**{name: [c.state, c.errno, c.detail] for name, c in fields.items()})
        """
    )
    assert tuple(facts) == posture.FIELDS
    must = ("landlock_abi", "landlock_fs", "seccomp", "tsync", "dumpable", "core", "no_new_privs")
    assert {facts[name][0] for name in (*must, "capabilities", "pdeathsig", "kernel")} == {
        "applied"
    }
    assert {facts[name][0] for name in ("wrapper", "userns", "netns", "pidns")} == {"unavailable"}
    assert facts["mdwe"][0] == "refused"


def test_the_fields_fit_the_signed_record(child, needs_landlock):
    fields = posture.collect(posture.host_facts(), confine.namespaces.probe(None, "none"))
    record = encode_posture(Posture(boot=bytes(16), fields=fields))
    assert parse_record(record).fields == fields
    assert json.loads(record)["v"] == 1


def test_root_outside_is_never_called_unprivileged(child, wrapper):
    """A mapped root is uid 0 inside; what counts is who that is outside."""
    facts = child(
        """
        from enclave_worker.sandbox import posture
        control = posture.host_facts()["uid"]
        report(inside=os.getuid(), state=control.state, detail=control.detail,
               outside=int(open("/proc/self/uid_map").read().split()[1]))
        """,
        wrapper=wrapper,
    )
    assert facts["state"] == ("applied" if facts["outside"] else "unavailable")

"""One listed worker whose time is up, or whom its vendor gave up, is no reason to ask nobody."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from simulators.hardware_tee import HardwareTee, NitroTee, SnpTee, TdxTee
from simulators.intel_parts import DAY, key, stamp, svns
from simulators.nitro import NitroVendor
from simulators.service import Service

from client.api import Client
from wire.errors import AttestationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.report import Verification
    from client.session import Options


def revoked(tee: TdxTee) -> None:
    tee.intel.revoked_pck.append(tee.intel.pck.serial)


def old_list(tee: TdxTee) -> None:
    tee.intel.crl_window = (-10 * DAY, -DAY)


def list_of_tomorrow(tee: TdxTee) -> None:
    tee.intel.crl_window = (2 * DAY, 30 * DAY)


def old_statement(tee: TdxTee) -> None:
    tee.intel.tcb_info["nextUpdate"] = stamp(tee.intel.now - DAY)


def statement_of_tomorrow(tee: TdxTee) -> None:
    tee.intel.tcb_info["issueDate"] = stamp(tee.intel.now + 2 * DAY)


def old_certificate(tee: TdxTee) -> None:
    tee.intel.pck = replace(tee.intel.pck, end=-DAY, sgx=None)


def revoked_level(tee: TdxTee) -> None:
    for level in tee.intel.tcb_info["tcbLevels"]:
        level["tcbStatus"] = "Revoked"


def below_every_level(tee: TdxTee) -> None:
    for level in tee.intel.tcb_info["tcbLevels"]:
        level["tcb"]["sgxtcbcomponents"] = svns([99] * 16)


def another_signer(tee: TdxTee) -> None:
    tee.intel.pck = replace(tee.intel.pck, signer=key(), sgx=None)


def old_and_signed_by_another(tee: TdxTee) -> None:
    tee.intel.pck = replace(tee.intel.pck, signer=key(), end=-DAY, sgx=None)


def edited_list(tee: TdxTee) -> None:
    tee.intel.edits["pck_crl"] = lambda crl: crl[:-1] + bytes([crl[-1] ^ 1])


def another_binding(tee: TdxTee) -> None:
    tee.body["report_data"] = bytes(64)


def found(service: Service, options: Options) -> Verification:
    with (
        service.serve() as server,
        Client(server.url, service.api_key, policy=service.policy(), options=options) as client,
    ):
        return client.report()


def beside(service: Service, good: HardwareTee, bad: HardwareTee, options: Options) -> Verification:
    """What a client says of two listed workers."""
    for tee in (good, bad):
        service.add(tee)
    return found(service, options)


@pytest.mark.parametrize(
    "change",
    [
        revoked, old_list, list_of_tomorrow, old_statement, statement_of_tomorrow, old_certificate,
        revoked_level, below_every_level,
    ],
)  # fmt: skip
def test_a_worker_that_its_vendor_no_longer_stands_by_is_passed_over(
    change: Callable[[TdxTee], None], options: Callable[..., Options]
) -> None:
    service = Service(kind=TdxTee)
    good, bad = TdxTee("good", service.now), TdxTee("bad", service.now)
    change(bad)
    verified = beside(service, good, bad, options())
    assert verified.error is None
    assert [worker.wid for worker in verified.workers] == [good.facts["wid"]]
    assert any(check.ok is False for check in verified.passed_over)


@pytest.mark.parametrize("field", ["revoked", "crl"])
def test_a_chip_that_amd_revoked_or_says_nothing_new_about_is_passed_over(
    field: str, options: Callable[..., Options]
) -> None:
    service = Service(kind=SnpTee)
    good, bad = SnpTee("good", service.now), SnpTee("bad", service.now)
    if field == "revoked":
        bad.revoked.append(7)  # the serial of every chip's certificate
        good.statements["crl"] = good.vouched()["crl"]
    else:
        bad.crl |= {"start": -10 * DAY, "end": -DAY}
    verified = beside(service, good, bad, options())
    assert verified.error is None
    assert [worker.wid for worker in verified.workers] == [good.facts["wid"]]


def test_an_enclave_whose_certificate_has_ended_is_passed_over(
    options: Callable[..., Options],
) -> None:
    service = Service(kind=NitroTee)
    good, bad = NitroTee("good", service.now), NitroTee("bad", service.now)
    vendor, real = NitroVendor(service.now), good.enclave.vendor
    vendor.keys, vendor.facts["enclave"] = real.keys, {"start": -DAY, "end": -3600}
    vendor.chain = {**vendor.chain, "root": real.root}
    bad.on(vendor)
    verified = beside(service, good, bad, options())
    assert verified.error is None
    assert [worker.wid for worker in verified.workers] == [good.facts["wid"]]


@pytest.mark.parametrize(
    "change", [another_signer, old_and_signed_by_another, edited_list, another_binding]
)
def test_a_forgery_beside_a_genuine_worker_stops_everything(
    change: Callable[[TdxTee], None], options: Callable[..., Options]
) -> None:
    service = Service(kind=TdxTee)
    good, bad = TdxTee("good", service.now), TdxTee("bad", service.now)
    change(bad)
    verified = beside(service, good, bad, options())
    assert isinstance(verified.error, AttestationError)
    assert verified.exit_code == 2


def test_a_revoked_worker_alone_is_refused_as_invalid(options: Callable[..., Options]) -> None:
    service = Service(kind=TdxTee)
    only = TdxTee("only", service.now)
    revoked(only)
    service.add(only)
    verified = found(service, options())
    assert isinstance(verified.error, AttestationError)
    assert "revoked" in verified.error.reasons
    assert verified.exit_code == 2

"""Intel DCAP: a lie is refused alike, whether or not dcap-qvl has an opinion of the quote.

Each lie of `simulators.intel_lies` is told by an ordinary platform, where this library rests on
dcap-qvl for some of its checks, and by one in a state that dcap-qvl leaves to a policy, where it
verifies everything by itself. Both times this library must have a reason of its own, and the
independent verifier must agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from simulators.intel import Intel
from simulators.intel_lies import LIES, TD_LIES
from simulators.intel_verdicts import examine

if TYPE_CHECKING:
    from collections.abc import Callable


def _td(attributes: int, version: int = 4) -> Intel:
    intel = Intel("tdx", version)
    intel.body["td_attributes"] = attributes.to_bytes(8, "little")
    return intel


def _debugged_enclave() -> Intel:
    intel = Intel("sgx")
    attributes = bytearray(intel.body["attributes"])
    attributes[0] |= 2
    intel.body["attributes"] = bytes(attributes)
    return intel


TDS: dict[str, Callable[[], Intel]] = {
    "TD": lambda: _td(1 << 28),
    "TD 1.5": lambda: _td(1 << 28, 5),
    "TD without SEPT_VE_DISABLE": lambda: _td(0),
    "debugged TD 1.5": lambda: _td(1 << 28 | 1, 5),
}
ENCLAVES: dict[str, Callable[[], Intel]] = {
    "enclave": lambda: Intel("sgx"),
    "debugged enclave": _debugged_enclave,
}
ORDINARY = ("TD", "TD 1.5", "enclave")
LIARS = ("TD", "debugged TD 1.5", *ENCLAVES)
PLATFORMS = {**TDS, **ENCLAVES}
OPINION = " 6 dcap-qvl"


def _refused(intel: Intel) -> None:
    examined = examine(intel)
    assert examined.authentic is False
    assert any(not reason.step.endswith(OPINION) for reason in examined.reasons), examined.reasons


@pytest.mark.parametrize("platform", PLATFORMS)
def test_honest_platform_is_genuine_in_every_state(platform: str) -> None:
    examined = examine(PLATFORMS[platform]())
    assert examined.authentic is True
    opinion = next(check for check in examined.checks if check.step.endswith(OPINION))
    assert (opinion.detail == "genuine") is (platform in ORDINARY)


@pytest.mark.parametrize("platform", LIARS)
@pytest.mark.parametrize("lie", LIES)
def test_lie_is_refused_in_every_state(lie: str, platform: str) -> None:
    intel = PLATFORMS[platform]()
    LIES[lie](intel)
    _refused(intel)


@pytest.mark.parametrize("platform", TDS)
@pytest.mark.parametrize("lie", TD_LIES)
def test_lie_about_a_td_is_refused_in_every_state(lie: str, platform: str) -> None:
    intel = TDS[platform]()
    TD_LIES[lie](intel)
    _refused(intel)

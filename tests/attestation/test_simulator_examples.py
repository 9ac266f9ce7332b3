"""The example in the simulated Intel's own description works, and one changed fact is refused."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

from simulators import intel as intel_simulator

from attestation.schemes import tdx


def test_the_example_of_the_simulated_intel_is_refused_for_the_one_fact_it_changes() -> None:
    described = cleandoc(intel_simulator.__doc__ or "")
    lines = [line.strip() for line in described.splitlines() if line.startswith("    ")]
    assert lines
    names: dict[str, Any] = {"Intel": intel_simulator.Intel}
    exec("\n".join(lines), names)
    assert {reason.code for reason in tdx.examine(names["question"]).reasons} == {"revoked"}

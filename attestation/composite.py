"""A CPU and its GPUs: whether the GPUs are those that the CPU's evidence names. Pure.

A GPU answers whoever gives it a nonce. With only a shared nonce any genuine GPU anywhere can
answer for the one the prompt will run on. So the binding, which the CPU's evidence signs, lists
its GPUs by key: `gpus: ["sha256:<hex of SHA-256 of the leaf's SubjectPublicKeyInfo>", ...]`; the
CPU's measured software fills it from its own driver, and every GPU's nonce is the binding's hash.

Steps:
 1. the binding names GPUs                              gpu_not_bound_to_cpu
 2. as many as the policy demands and as are shown      gpu_count
 3. no GPU is shown or named twice, by key, by serial   gpu_repeated
    or by chip
 4. all are of one architecture; none is a switch       gpu_architecture_mixed,
                                                        product_not_accepted
 5. exactly the GPUs shown are the ones named           gpu_not_bound_to_cpu

What the CALLER must still do: examine both for this binding's nonce, and judge their state.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from attestation.verify.fleet import check_distinct
from attestation.verify.spdm import GPUS
from wire.errors import refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attestation.ledger import Ledger
    from attestation.rules.nvidia import NvidiaRule
    from attestation.verify.fleet import Fleet

_refused: Final = partial(refused, about="GPUs")


def check_composite(
    ledger: Ledger, fleet: Fleet, gpus: Sequence[str] | None, rule: NvidiaRule
) -> None:
    """Steps 1 to 5, all of them.

    Args:
        ledger: the account.
        fleet: the GPUs' evidence, examined.
        gpus: fingerprints in the binding that the CPU's evidence signs.
        rule: the demands on GPUs.
    """
    named = tuple(gpus or ())
    ledger.run("composite 1 named", lambda: _named(named))
    ledger.run("composite 2 count", lambda: _count(fleet, named, rule))
    ledger.run("composite 3 distinct", lambda: check_distinct(fleet, named))
    ledger.run("composite 4 one architecture", lambda: _one_architecture(fleet))
    ledger.run("composite 5 those named", lambda: _those_named(fleet, named))


def _named(named: Sequence[str]) -> str:  # step 1
    if not named:
        raise _refused("gpu_not_bound_to_cpu", "the CPU's evidence names no GPU, expected its own")
    return f"{len(named)} named"


def _count(fleet: Fleet, named: Sequence[str], rule: NvidiaRule) -> str:  # step 2
    shown = len(fleet.devices)
    if shown != len(named) or (rule.count is not None and shown != rule.count):
        demanded = "any number" if rule.count is None else rule.count
        raise _refused(
            "gpu_count", f"found {shown} shown and {len(named)} named, expected {demanded} of both"
        )
    return f"{shown} shown, named and demanded"


def _one_architecture(fleet: Fleet) -> str:  # step 4
    found = {device.family.architecture if device.family else "" for device in fleet.devices}
    if not found <= set(GPUS):
        raise _refused("product_not_accepted", "found a device that is no GPU, expected GPUs only")
    if len(found) != 1:
        raise _refused("gpu_architecture_mixed", f"found {len(found)} architectures, expected one")
    return found.pop()


def _those_named(fleet: Fleet, named: Sequence[str]) -> str:  # step 5
    shown = {device.fingerprint for device in fleet.devices}
    strangers = shown ^ set(named)
    if strangers:
        raise _refused(
            "gpu_not_bound_to_cpu",
            f"found {len(strangers)} GPUs only shown or only named, expected the same ones",
        )
    return f"{len(shown)} GPUs by key"

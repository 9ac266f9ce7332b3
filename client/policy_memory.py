"""A signed policy that was replaced stays signed: an older file put back is refused.

Remembered by key and `id`: the highest `seq` in force here, and the digest it had. An unsigned
policy is not remembered: whoever can replace that file can write any `seq` into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wire.errors import PolicyError
from wire.ids import b64u

from .highest import Highest

if TYPE_CHECKING:
    from pathlib import Path

    from attestation.policy import Policy


def admit_policy(policy: Policy, key: bytes, state_dir: Path, now: int) -> None:
    """Take a signed policy into force, and remember it.

    Args:
        policy: its signature by `key` was checked.
        key: Ed25519 public key, 32 bytes.
        state_dir: where clients remember.
        now: Unix seconds. A policy that is not in force is neither refused nor remembered here:
            one for next month must not end this month's.

    Raises:
        PolicyError: older than the one remembered, or another under the same number.
        ConfigError: the memory cannot be read or written.
    """
    if not policy.not_before <= now < policy.expires:
        return
    name = f"policy/{b64u(key)}/{policy.id}"
    mark = Highest(state_dir).admit(name, policy.seq, policy.digest)
    if mark is None:
        return
    if policy.seq < mark.number:
        raise PolicyError(
            f"policy: found seq {policy.seq}, expected at least {mark.number}, which was in force",
            hint="take the newer file, or sign the policy anew with a higher seq",
        )
    raise PolicyError(
        f"policy: found other demands under seq {policy.seq}, expected those in force under it",
        hint="sign the changed policy with a higher seq",
    )

"""Kind `nvidia-nvswitch-spdm`: one NVSwitch's signed measurements (LS10).

Steps and reason codes are those of `nvidia_gpu`. A switch's evidence never counts as a GPU's: its
certificates name another family, and it has no driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attestation.rules import nvidia
from attestation.scheme import Scheme
from attestation.verify.device import COLLATERAL
from attestation.verify.spdm import SWITCHES

from .nvidia_gpu import ANCHORS, ROLES, examine_single, further, needs

if TYPE_CHECKING:
    from attestation.examined import Examined, Question

KIND: Final = "nvidia-nvswitch-spdm"


def examine(question: Question) -> Examined:
    """Whether a genuine switch says this, for the nonce expected."""
    return examine_single(KIND, SWITCHES, question)


SCHEME: Final = Scheme(
    kind=KIND,
    trust="hardware",
    evidence=(ROLES, ()),
    collateral=COLLATERAL,
    anchors=ANCHORS,
    examine=examine,
    needs=needs,
    rule=nvidia.parse_switch,
    judge=nvidia.judge,
    carries=None,
    rule_keys=(nvidia.SWITCH_KEYS, nvidia.OPTIONAL_KEYS),
    further=further,
)

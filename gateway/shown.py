"""What admitted workers showed, as JSON: made once for each, because anybody may ask for it.

A node of sixteen GPUs shows two megabytes with its collateral. To encode them takes ten
milliseconds of the event loop, in which no request is answered.
"""

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from attestation.carried import collateral_json
from evidence.beacon import BeaconProof
from evidence.entry import Logged
from wire.ids import b64u

from .session import Epoch

#: Bytes kept: of some thirty nodes of GPUs, or of some thousand machines without.
SHOWN_MAX = 64 << 20


@dataclass(slots=True)
class Shown:
    """Remembers what was made for each set of keys, while there is room.

    Attributes:
        room: bytes of JSON kept.
    """

    room: int = SHOWN_MAX
    _made: OrderedDict[bytes, tuple[Epoch, bytes]] = field(default_factory=OrderedDict)
    _size: int = 0

    def document(self, epoch: Epoch, verdict: Logged, beacon: BeaconProof | None) -> bytes:
        """One JSON object: binding, evidence, posture and collateral, and what dates them.

        Args:
            epoch: what was admitted.
            verdict: the verdict's entry in the log; with `beacon`, this changes as the log grows.
            beacon: the log head that the binding names, where it names one.
        """
        dated = {
            "inclusion": verdict.to_json(),
            "beacon": None if beacon is None else beacon.to_json(),
        }
        return self._shown(epoch)[:-1] + b"," + _encode(dated)[1:]

    def _shown(self, epoch: Epoch) -> bytes:
        of, made = self._made.get(epoch.bh, (None, b""))
        if of is not epoch:
            self._forget(epoch.bh)
            made = _encode(_members(epoch))
            self._made[epoch.bh] = (epoch, made)
            self._size += len(made)
            while self._size > self.room:
                self._forget(next(iter(self._made)))
        else:
            self._made.move_to_end(epoch.bh)
        return made

    def _forget(self, bh: bytes) -> None:
        _, made = self._made.pop(bh, (None, b""))
        self._size -= len(made)


def _members(epoch: Epoch) -> dict[str, Any]:
    posture = epoch.presented.posture
    return {
        "binding": b64u(epoch.appraised.binding.raw),
        "evidence": [item.to_json() for item in epoch.presented.evidence],
        "posture": None if posture is None else b64u(posture),
        "collateral": collateral_json(epoch.collateral.roles),
    }


def _encode(members: dict[str, Any]) -> bytes:
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()

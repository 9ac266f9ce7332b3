"""How many workers a list can hold at most: bindings that speak for one worker count once.

A list of many entries may be one worker's: a gateway may list two epochs of it during a rotation,
or want a short list to look long. Only fetched and verified bindings show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evidence.directory import WorkerEntry

    from .workers import VerifiedWorker


def one_worker(a: VerifiedWorker, b: VerifiedWorker) -> bool:
    """Whether two bindings speak for one worker, so that K of them are not K candidates.

    A gateway may list two epochs of a worker that rotates: either is usable, both are one.
    """
    one, other = a.appraised.binding, b.appraised.binding
    return (
        one.wid == other.wid
        or one.boot == other.boot
        or one.sig_pk == other.sig_pk
        or not set(one.kids().values()).isdisjoint(other.kids().values())
    )


def at_most(entries: Iterable[WorkerEntry], verified: Iterable[VerifiedWorker]) -> int:
    """The most workers a list can stand for, given the bindings verified so far.

    An entry nobody looked at counts as a worker of its own: this is an upper bound, and becomes
    exact only when every entry was drawn once.
    """
    known = {worker.bh: worker for worker in verified}
    distinct: list[VerifiedWorker] = []
    unseen = 0
    for entry in entries:
        worker = known.get(entry.bh)
        if worker is None:
            unseen += 1
        elif not any(one_worker(worker, other) for other in distinct):
            distinct.append(worker)
    return unseen + len(distinct)

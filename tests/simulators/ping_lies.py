"""What a service answers to a ping: honest, or with one fact wrong."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from simulators.tee import SoftwareTee

from wire.records import DATA, HEAD, Record, json_record
from wire.response import ResponseWriter

if TYPE_CHECKING:
    from simulators.service import Service

    from wire.envelope import OpenedRequest

# The gateway's own lies about sealed answers ("truncated", "gateway_error", …) apply to pings too.
PING_LIES = frozenset(
    {
        "ping_other_worker",  # sealed under another worker's response secret
        "ping_other_kid",  # the header names another worker's key
        "ping_replayed",  # the answer to an earlier ping
        "ping_sealed_refusal",  # the worker itself says 404
        "ping_with_text",  # a HEAD of 200, and more
        "ping_no_head",
        "ping_no_final",
    }
)


def pong(service: Service, opened: OpenedRequest) -> list[bytes]:
    """The chunks of an answer to a ping."""
    assert opened.body == b"", "a ping has no body"
    lies = service.lies
    kid, r_kid = opened.kid, opened.r_kid
    if "ping_other_worker" in lies:
        r_kid = os.urandom(32)  # another candidate never learns this one's
    if "ping_other_kid" in lies:
        (kem,) = SoftwareTee("stranger", service.now).facts["kems"]
        kid = kem.kid
    writer = ResponseWriter(opened.th, kid, opened.header.rid, opened.keys.rs, r_kid, os.urandom)
    head = json_record(HEAD, {"s": 404 if "ping_sealed_refusal" in lies else 200, "h": {}})
    records = [] if "ping_no_head" in lies else [head]
    if "ping_with_text" in lies:
        records.append(Record(DATA, b"words nobody asked for"))
    chunks = [writer.prelude(), writer.frame(records, 1024)]
    if "ping_no_final" not in lies:
        chunks.append(writer.frame([], 8192, final=True))
    if "ping_replayed" in lies:
        return service.recorded_pongs.setdefault(opened.kid, chunks)
    return chunks

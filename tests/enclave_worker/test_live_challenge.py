"""A real worker's live answer is about the binding asked for, whatever else it offers by then."""

import os
from dataclasses import replace
from typing import Any

import pytest

from attestation.binding import Binding, parse_binding
from wire.ids import unb64u

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]


def without_nonce(binding: Binding) -> Binding:
    return replace(binding, nonce=None, raw=b"")


async def test_while_keys_rotate_each_binding_answers_for_itself(make_bed: Any) -> None:
    async with make_bed(epoch_s=12) as bed:
        first = bed.peer.newest.binding
        await bed.peer.until(lambda: len(bed.peer.introduced) == 2)
        second = bed.peer.newest.binding
        for listed in (first, second):
            nonce = os.urandom(32)
            answer = await bed.peer.challenge(nonce, about=listed)
            live = parse_binding(unb64u(answer["binding"]))
            assert live.nonce == nonce
            assert without_nonce(live) == without_nonce(listed)
        stranger = replace(first, raw=b"{}")
        assert "binding" not in await bed.peer.challenge(os.urandom(32), about=stranger)

"""Limits of `anchorhold/1`. A parser reads its limit before it reads the data.

Sizes are bytes and times are seconds unless the name says otherwise.
"""

from __future__ import annotations

from typing import Final

RID_LEN: Final = 16  # request id
VERSION: Final = 1  # the only version; magic, header, labels and binding all carry it

HDR_MAX: Final = 8192  # clear request header: identifiers only, so a few hundred bytes are usual
RHDR_MAX: Final = 8192  # clear response header, same reason
FRAME_PT_MAX: Final = 65_536  # a frame is verified whole before use: bounds what waits unverified
TAG_LEN: Final = 16  # AES-GCM tag
FRAME_CT_MAX: Final = FRAME_PT_MAX + TAG_LEN
FRAME_HEAD: Final = 4  # u8 flags and u24 length
FRAMES_MAX: Final = 2**32  # the counter is XORed into the nonce and never repeats below this
BODY_MAX: Final = 8 * 1024 * 1024  # request body; a longer context does not fit any served model
REQUEST_HEAD_MAX: Final = 65_536  # the HEAD record travels in one frame
REQUEST_MIN: Final = 1024  # smaller requests are padded up: short prompts look alike
# A padded request: body and HEAD, plus Padmé's at most 12 %.
PLAINTEXT_MAX: Final = (BODY_MAX + 2 * REQUEST_HEAD_MAX) * 9 // 8
# A sender fills its frames. Empty ones cost the worker a decryption each: their number is bounded.
REQUEST_FRAMES_MAX: Final = 4096
# Of a response, FINAL aside: 29 hours of a frame every 100 ms. A reader keeps a hash of each.
RESPONSE_FRAMES_MAX: Final = 1_048_576
# Answer text a token may stand for: vocabularies have entries of a few hundred bytes.
TOKEN_TEXT_MAX: Final = 1024
K_MAX: Final = 8  # wraps in one envelope, and kids in all over the life of a request
REWRAPS_MAX: Final = 2  # a lying gateway could ask for more wraps to widen who can open the body
WRAP_MAX: Final = 2048  # the hybrid wrap is 1200 bytes; room for nothing unexpected
ENVELOPE_MAX: Final = (
    4 + 4 + HDR_MAX + 32 + 1 + K_MAX * (32 + 2 + WRAP_MAX)
    + PLAINTEXT_MAX + REQUEST_FRAMES_MAX * (FRAME_HEAD + TAG_LEN)
)  # fmt: skip
CLOCK_SKEW_S: Final = 120  # tolerated difference between two honest clocks
# 9999-12-31T00:00:00Z: no calendar reaches a later time and a day of reckoning beyond it.
TIME_MAX: Final = 253_402_214_400
LIFE_MAX_S: Final = 900  # iat..exp: longest time in a queue, and how long ciphertext is kept
OUT_CLASSES: Final = (64, 256, 1024, 4096, 16_384, 65_536)  # output token classes, powers of four
BINDING_MAX: Final = 16_384
JSON_DEPTH_MAX: Final = 8
BODY_DEPTH_MAX: Final = 32  # of request and answer bodies: schemas of tools nest
JSON_MAX: Final = 1024 * 1024  # any JSON document of the link or a directory
PROBLEM_MAX: Final = 65_536  # a problem document is a sentence and at most one notice
NOTICE_MAX: Final = 2048
REPLAY_MAX: Final = 1_000_000  # 32 bytes each; at this many the worker rotates its key early
LINK_MESSAGE_MAX: Final = 80 * 1024 * 1024  # a 64 MiB body, the largest configurable, with overhead
# Of a worker's messages: the largest answer to a question, a pull, a report of a request's end or a
# signed notice; a receipt's event, base64; and the items of a message that holds evidence or an
# event, all of which is in a dozen texts.
LINK_SMALL_MAX: Final = 4096
LINK_RECEIPT_MAX: Final = 32_768
LINK_ITEMS_MAX: Final = 256
NAME_MAX: Final = 256  # aud, model: names, not documents
PRIORITY_MAX: Final = 9

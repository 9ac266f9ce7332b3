"""Sizes and classes, by example; the general rules are in the properties."""

from __future__ import annotations

import pytest

from wire.errors import ClassExceededError
from wire.padding import out_class, padme, request_size


@pytest.mark.parametrize(
    ("n", "padded"),
    [(0, 0), (1, 1), (2, 2), (7, 7), (9, 10), (31, 32), (100, 104), (1025, 1088), (5000, 5120)],
)
def test_padme_sizes(n, padded):
    assert padme(n) == padded


@pytest.mark.parametrize(("n", "size"), [(0, 1024), (1, 1024), (1024, 1024), (1025, 1088)])
def test_short_requests_share_one_size(n, size):
    assert request_size(n) == size


def test_a_negative_length_is_a_caller_mistake():
    with pytest.raises(ValueError, match="length"):
        padme(-1)


@pytest.mark.parametrize(("tokens", "size"), [(1, 64), (64, 64), (65, 256), (65536, 65536)])
def test_output_classes(tokens, size):
    assert out_class(tokens) == size


def test_more_tokens_than_every_class_are_refused():
    with pytest.raises(ClassExceededError, match="at most 65536"):
        out_class(65537)

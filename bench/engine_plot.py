"""Growth with batch and with context as one SVG file, written by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Points = list[tuple[float, float]]

WIDTH, HEIGHT = 460, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 34, 46
# fmt: off
COLOURS = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b",
    "#e377c2", "#7f7f7f", "#bcbd22", "#17becf", "#000000", "#aec7e8",
)
# fmt: on
LEGEND_ROW = 16


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram: both axes logarithmic to base 2; bounds are drawn dashed."""

    title: str
    across: str
    lines: Mapping[str, Points]
    bounds: Mapping[str, Points]

    def draw(self, left: float, colours: Mapping[str, str]) -> list[str]:
        """Elements of the panel whose left edge is at `left`."""
        # Nothing at or below zero has a place on a logarithmic axis, nor has what was not measured.
        points = [
            p for line in (*self.lines.values(), *self.bounds.values()) for p in line if p[1] > 0
        ]
        if not points:
            return []
        low_x, high_x = limits([x for x, _ in points])
        low_y, high_y = limits([y for _, y in points])

        def place(x: float, y: float) -> tuple[float, float]:
            share_x = (math.log2(x) - low_x) / (high_x - low_x)
            share_y = (math.log2(y) - low_y) / (high_y - low_y)
            return (
                left + LEFT + share_x * (WIDTH - LEFT - RIGHT),
                HEIGHT - BOTTOM - share_y * (HEIGHT - TOP - BOTTOM),
            )

        drawn = [text(left + WIDTH / 2, 18, self.title, "middle", 13)]
        drawn.append(text(left + WIDTH / 2, HEIGHT - 8, self.across, "middle"))
        for power in range(low_x, high_x + 1):
            x, foot = place(2.0**power, 2.0**low_y)
            drawn.append(f'<path d="M{x:.1f} {TOP}V{foot:.1f}" stroke="#ddd"/>')
            drawn.append(text(x, foot + 16, label(power), "middle"))
        for power in range(low_y, high_y + 1):
            x, y = place(2.0**low_x, 2.0**power)
            drawn.append(f'<path d="M{x:.1f} {y:.1f}H{left + WIDTH - RIGHT}" stroke="#ddd"/>')
            drawn.append(text(x - 6, y + 4, label(power), "end"))
        for lines, dash in ((self.lines, ""), (self.bounds, ' stroke-dasharray="4 3"')):
            for name, line in lines.items():
                way = " ".join(
                    f"{x:.1f},{y:.1f}" for x, y in (place(*p) for p in sorted(line) if p[1] > 0)
                )
                drawn.append(
                    f'<polyline points="{way}" fill="none" stroke="{colours[name]}"'
                    f' stroke-width="1.8"{dash}/>'
                )
        return drawn


def limits(values: Sequence[float]) -> tuple[int, int]:
    """Powers of two around all values, never the same one twice."""
    low, high = math.floor(math.log2(min(values))), math.ceil(math.log2(max(values)))
    return low, max(high, low + 1)


def label(power: int) -> str:
    """A power of two as an axis shows it."""
    if power >= 10:
        return f"{2 ** (power - 10)}k"
    return f"{2**power}" if power >= 0 else f"1/{2**-power}"


def text(x: float, y: float, words: str, anchor: str, size: int = 11) -> str:
    """A piece of text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(words)}</text>"
    )


def svg(panels: Sequence[Panel]) -> str:
    """The whole picture: panels side by side, one legend below."""
    names = list(dict.fromkeys(n for panel in panels for n in (*panel.lines, *panel.bounds)))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    across = max(1, len(panels) * WIDTH // 230)
    width = len(panels) * WIDTH
    height = HEIGHT + LEGEND_ROW * -(-len(names) // across) + 28
    drawn = [element for i, p in enumerate(panels) for element in p.draw(i * WIDTH, colours)]
    for i, name in enumerate(names):
        x, y = 20 + i % across * 230, HEIGHT + 14 + i // across * LEGEND_ROW
        drawn.append(f'<path d="M{x} {y - 4}h22" stroke="{colours[name]}" stroke-width="3"/>')
        drawn.append(text(x + 28, y, name, "start"))
    drawn.append(text(20, height - 6, "dashed: roofline of the same mode", "start"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' font-family="sans-serif"><rect width="100%" height="100%" fill="#fff"/>'
        + "".join(drawn)
        + "</svg>\n"
    )

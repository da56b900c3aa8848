"""Draws bars: how far each target is reached. Plain SVG, so that nothing must be installed for it."""

from dataclasses import dataclass
from html import escape
from typing import Final

_ROW, _LEFT, _WIDE, _RIGHT, _TOP = 26, 190, 380, 220, 48
_LIMIT: Final = 2.0
"""Where bars end, however far beyond the target they go."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One target: 1 is reached."""

    name: str
    ratio: float
    words: str


def _text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" {more}>{escape(words)}</text>'


def bars(title: str, given: list[Bar]) -> str:
    """Return a picture; the line in its middle is where a target is reached."""
    high = _TOP + _ROW * len(given) + 16
    goal = _LEFT + _WIDE / _LIMIT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDE + _RIGHT} {high}"',
        'font-family="sans-serif" font-size="12" fill="#222">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        _text(8, 20, title, 'font-weight="bold"'),
        _text(goal, _TOP - 8, "target", 'text-anchor="middle" fill="#555"'),
    ]
    for n, bar in enumerate(given):
        y = _TOP + _ROW * n
        wide = _WIDE * min(bar.ratio, _LIMIT) / _LIMIT
        colour = "#2f7d4f" if bar.ratio >= 1 else "#b4552d"
        parts += [
            _text(_LEFT - 8, y + 14, bar.name, 'text-anchor="end"'),
            f'<rect x="{_LEFT}" y="{y}" width="{wide:.1f}" height="{_ROW - 8}" fill="{colour}"/>',
            _text(_LEFT + max(wide, _WIDE / _LIMIT) + 8, y + 14, f"{bar.words} ({bar.ratio:.2f})"),
        ]
    parts += [f'<line x1="{goal:g}" x2="{goal:g}" y1="{_TOP - 4}" y2="{high - 8}" stroke="#555"/>', "</svg>"]
    return "\n".join(parts) + "\n"

"""Plots as SVG in one HTML page that needs nothing else. Standard library only."""

import html
import math

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 220, 48, 28, 24
COLOURS = ["#1f6feb", "#d1242f", "#1a7f37"]


def heading(title, text):
    return f"<h2>{html.escape(title)}</h2><pre>{html.escape(text)}</pre>"


def page(title, parts):
    style = (
        "body{font:14px system-ui,sans-serif;margin:2em;max-width:100em;color:#1f2328}"
        "svg{margin:0 1em 1em 0;background:#f6f8fa;border-radius:6px}text{font-size:11px;fill:#57606a}pre{white-space:pre-wrap}"
    )
    return (
        f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
        f"<h1>{html.escape(title)}</h1>{''.join(parts)}\n"
    )


def ticks(low, high, count=5):
    """Round numbers from low to high."""
    step = 10 ** math.floor(math.log10((high - low) / count or 1))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= count)
    value = math.ceil(low / step) * step
    while value <= high + 1e-9:
        yield value
        value += step


def frame(title, xs, ys, body):
    (x0, x1), (y0, y1) = xs, ys
    x = lambda value: LEFT + (value - x0) / ((x1 - x0) or 1) * (WIDTH - LEFT - 12)
    y = lambda value: HEIGHT - BOTTOM - (value - y0) / ((y1 - y0) or 1) * (HEIGHT - BOTTOM - TOP)
    out = [f'<svg width="{WIDTH}" height="{HEIGHT}" role="img"><title>{html.escape(title)}</title>']
    out.append(f'<text x="{LEFT}" y="15">{html.escape(title)}</text>')
    for value in ticks(y0, y1):
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - 12}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#d0d7de"/>')
        out.append(f'<text x="{LEFT - 5}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in ticks(x0, x1):
        out.append(f'<text x="{x(value):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{value:g}</text>')
    return "".join(out + body(x, y) + ["</svg>"])


def lines(title, curves, mark=None):
    """Curves of (x, y) by name; a broken line at x = mark."""
    points = [point for curve in curves.values() for point in curve if point[1] == point[1]]
    if not points:
        return ""
    xs = min(x for x, _ in points), max(x for x, _ in points)
    ys = 0, max(y for _, y in points) or 1

    def body(x, y):
        out = []
        for number, (name, curve) in enumerate(curves.items()):
            colour = COLOURS[number % len(COLOURS)]
            path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in curve if b == b)
            out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            out.append(f'<text x="{WIDTH - 14}" y="{TOP + 14 * number + 8}" text-anchor="end" style="fill:{colour}">{html.escape(name)}</text>')
        if mark:
            out.append(f'<line x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#57606a" stroke-dasharray="4"/>')
            out.append(f'<text x="{x(mark) + 4:.1f}" y="{TOP + 40}">knee {mark:g}/s</text>')
        return out

    return frame(title, xs, ys, body)


def histogram(title, values, bins=40):
    if not values:
        return ""
    ordered = sorted(values)
    # The last per mille would leave the rest a few pixels.
    low, high = ordered[0], ordered[min(len(ordered) - 1, int(0.999 * len(ordered)))] or 1
    width = (high - low) / bins or 1
    counts = [0] * bins
    for value in ordered:
        counts[min(bins - 1, int((value - low) / width))] += 1

    def body(x, y):
        return [
            f'<rect x="{x(low + i * width):.1f}" y="{y(count):.1f}" width="{x(low + width) - x(low):.1f}" '
            f'height="{y(0) - y(count):.1f}" fill="{COLOURS[0]}"/>'
            for i, count in enumerate(counts)
        ]

    return frame(title, (low, low + bins * width), (0, max(counts)), body)

"""Mermaid flow charts as SVG pictures, drawn when the pages are made: no script and no network is needed to see them.

Of Mermaid's language this knows `flowchart LR` with `a --> b`, `a -- words --> b` and the labels `a[words]`, `a["words"]`. A
chart with anything else is left as it stands.
"""

import html
import re
import textwrap
from dataclasses import dataclass, field

NODE = r"([\w.]+)(?:\[(?:\"([^\"]*)\"|([^\"\]]*))\])?"
EDGE = re.compile(rf"\s*{NODE}\s*(?:--\s*([^->][^>]*?)\s*)?-->\s*{NODE}\s*")
SIZE, LINE, GAP, BETWEEN, WORDS = (
    13,
    17,
    18,
    56,
    18,
)  # pixels: letters, lines, below a box, between columns; letters a line


@dataclass
class Box:
    """A node, or (label "") a place that an edge passes on its way."""

    label: str
    lines: list[str] = field(default_factory=list)
    rank: int = 0
    x: float = 0.0
    y: float = 0.0  # of the middle
    width: float = 0.0
    height: float = float(LINE)


def parse(chart: str) -> tuple[dict[str, str], list[tuple[str, str, str]]] | None:
    """-> name -> label, and (from, to, words) of each edge; None if the chart has something that is not known here.

    >>> parse("flowchart LR\\n    a[your data] --> b.py\\n    b.py -- train, val --> c")
    ({'a': 'your data', 'b.py': 'b.py', 'c': 'c'}, [('a', 'b.py', ''), ('b.py', 'c', 'train, val')])
    >>> parse("flowchart LR\\n    a{round} --> b")
    """
    first, *rest = [line for line in chart.splitlines() if line.strip()]
    matches = [EDGE.fullmatch(line) for line in rest]
    if first.strip() != "flowchart LR" or not rest or None in matches:
        return None
    labels, edges = {}, []
    for match in matches:
        start, start_quoted, start_plain, words, end, end_quoted, end_plain = match.groups()
        for name, label in ((start, start_quoted or start_plain), (end, end_quoted or end_plain)):
            labels[name] = label or labels.get(name, name)
        edges.append((start, end, words or ""))
    return labels, edges


def ranks(names: list[str], edges: list[tuple[str, str, str]]) -> dict[str, int]:
    """The column of each node: as far left as those before it allow; what has none before it, beside what comes next.

    >>> ranks(["a", "b", "c", "d"], [("a", "b", ""), ("b", "c", ""), ("d", "c", "")])
    {'a': 0, 'b': 1, 'c': 2, 'd': 1}
    """
    found = dict.fromkeys(names, 0)
    for _ in names:
        for start, end, _ in edges:
            found[end] = max(found[end], min(found[start] + 1, len(names)))
    for name in names:
        after = [found[end] for start, end, _ in edges if start == name]
        if after and not any(end == name for _, end, _ in edges):
            found[name] = min(after) - 1
    return found


def width_of(text: str) -> float:
    """Pixels: a Chinese character is as wide as it is high, a Latin one little more than half."""
    return sum(SIZE if character > "\u2e7f" else 0.56 * SIZE for character in text)


def layout(labels: dict[str, str], edges: list[tuple[str, str, str]]) -> tuple[dict[str, Box], list[list[Box]]]:
    """-> the boxes by name, and for each edge the boxes that it goes through, its ends among them."""
    rank = ranks(list(labels), edges)
    boxes = {name: Box(label, textwrap.wrap(label, WORDS) or [""], rank[name]) for name, label in labels.items()}
    for box in boxes.values():
        box.width, box.height = max(map(width_of, box.lines)) + 20, LINE * len(box.lines) + 14
    ways = []
    for start, end, _ in edges:
        between = [Box("", rank=column) for column in range(rank[start] + 1, rank[end])]
        ways.append([boxes[start], *between, boxes[end]])
    columns: list[list[Box]] = [[] for _ in range(max(rank.values()) + 1)]
    for box in [*boxes.values(), *(box for way in ways for box in way[1:-1])]:
        columns[box.rank].append(box)
    x = 1.0
    for column in columns:
        column.sort(
            key=lambda box: middle_of([a.y for way in ways for a, b in zip(way, way[1:], strict=False) if b is box])
        )
        y, widest = -sum(box.height + GAP for box in column) / 2, max(box.width for box in column)
        for box in column:
            box.width = box.width or widest  # an edge on its way goes straight past the column's boxes
            box.x, box.y, y = x + (widest - box.width) / 2, y + (box.height + GAP) / 2, y + box.height + GAP
        x += widest + BETWEEN
    return boxes, ways


def middle_of(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def svg(chart: str) -> str | None:
    """A chart as an HTML figure; None if it cannot be drawn here."""
    parsed = parse(chart)
    if parsed is None:
        return None
    labels, edges = parsed
    boxes, ways = layout(labels, edges)
    everything = [box for way in ways for box in way]
    top = min(box.y - box.height / 2 for box in everything) - 12
    width = max(box.x + box.width for box in everything) + 1
    height = max(box.y + box.height / 2 for box in everything) - top + 2
    shapes = [arrow(way, words) for way, (_, _, words) in zip(ways, edges, strict=True)]
    shapes += [picture_of(box) for box in boxes.values()]
    said = html.escape("; ".join(f"{labels[start]} → {labels[end]}" for start, end, _ in edges))
    tip = '<path d="M0 0L8 4L0 8z"/>'
    size = 'viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto"'
    head = f'<defs><marker id="tip" {size}>{tip}</marker></defs>'
    view = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 {top:.0f} {width:.0f} {height:.0f}"'
    return f'<figure class="flow"><svg role="img" aria-label="{said}" {view}>{head}{"".join(shapes)}</svg></figure>'


def picture_of(box: Box) -> str:
    frame = f'<rect x="{box.x:.1f}" y="{box.y - box.height / 2:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="5"/>'
    first = box.y - LINE * (len(box.lines) - 1) / 2 + SIZE * 0.36
    lines = (
        f'<text x="{box.x + box.width / 2:.1f}" y="{first + LINE * k:.1f}">{html.escape(line)}</text>'
        for k, line in enumerate(box.lines)
    )
    return frame + "".join(lines)


def arrow(way: list[Box], words: str) -> str:
    """A smooth line through the boxes of a way, from the right side of the first to the left side of the last."""
    x0, y0 = way[0].x + way[0].width, way[0].y
    path = f"M{x0:.1f} {y0:.1f}"
    for box in way[1:]:
        bend = (box.x - x0) / 2
        path += f"C{x0 + bend:.1f} {y0:.1f} {box.x - bend:.1f} {box.y:.1f} {box.x:.1f} {box.y:.1f}"
        path += f"H{box.x + box.width:.1f}" if box is not way[-1] else ""
        x0, y0 = box.x + box.width, box.y
    first, second = way[:2]
    x, y = (first.x + first.width + second.x) / 2, (first.y + second.y) / 2
    if len(way) > 2:
        x, y = second.x + second.width / 2, second.y
    label = f'<text class="on" x="{x:.1f}" y="{y - 5:.1f}">{html.escape(words)}</text>' if words else ""
    return f'<path class="line" d="{path}" marker-end="url(#tip)"/>{label}'

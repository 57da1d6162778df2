"""Draws where a translator looks: attention as a heat map, with a font that has the characters, or with numbers for them."""

import io
import re
from functools import cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from torch import Tensor

from utils import warn, write_atomic

HINT = (
    "no installed font has the characters of these sentences, so the pictures have numbers in their place, and the file\n"
    "of the same name in .txt says which is which. A free font with Chinese: Noto Sans CJK (Debian and Ubuntu: apt install\n"
    "fonts-noto-cjk); or name a font file with --font FILE."
)
LIKELY = "cjk|notosanssc|sourcehan|wqy|simhei|simsun|msyh|pingfang|heiti|hiragino|droidsansfallback|uming|ukai"


def has(path: str, characters: set[str]) -> bool:
    """Whether the font file has a glyph for each of them."""
    try:
        font = FT2Font(path)
        return all(font.get_char_index(ord(c)) for c in characters)
    except (OSError, RuntimeError, ValueError):  # a damaged file, or a kind that matplotlib cannot read
        return False


@cache
def installed() -> list[str]:
    """The font files of this machine: matplotlib's own first, then those that likely have Chinese, as there may be a
    thousand. Looked for anew: the list that matplotlib keeps may be older than a font that was just installed."""
    fonts = sorted(font_manager.findSystemFonts(), key=lambda path: not re.search(LIKELY, Path(path).name, re.I))
    return [font_manager.findfont("DejaVu Sans"), *fonts]


def find_font(text: str, named: str | None = None) -> font_manager.FontProperties | None:
    """A font with every character of `text`: the file `named`, or an installed one. None if there is none."""
    characters = {c for c in text if not c.isspace()}
    path = next((path for path in ([named] if named else installed()) if has(path, characters)), None)
    return font_manager.FontProperties(fname=path) if path else None


def draw(rows: list[tuple[list[str], list[str], Tensor]], path: Path, named: str | None = None) -> list[Path]:
    """Draws (source tokens, translation tokens, weights (T, S)) side by side into `path` -> the files written."""
    widths = [max(4, len(source)) for source, _, _ in rows]
    size = 2 + 0.42 * sum(widths) + 1.2 * len(rows), 1.8 + 0.38 * max(len(target) for _, target, _ in rows)
    figure, legend = Figure(figsize=size, layout="constrained"), []
    axes = figure.subplots(1, len(rows), squeeze=False, width_ratios=widths)[0]
    for axis, (source, target, weights) in zip(axes, rows, strict=True):
        axis.imshow(weights.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for tokens, write in ((source, axis.set_xticks), (target, axis.set_yticks)):
            tokens = [token.strip() for token in tokens]
            font = find_font("".join(tokens), named)
            if font is None:  # boxes in place of characters would tell nobody anything
                legend.append("  ".join(f"{i} {token}" for i, token in enumerate(tokens, 1)))
                tokens = [str(i) for i in range(1, len(tokens) + 1)]
            write(range(len(tokens)), tokens, fontproperties=font, fontsize=11)
        axis.tick_params(axis="x", rotation=90, top=True, labeltop=True, bottom=False, labelbottom=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomic(path, buffer.getvalue())
    if not legend:
        return [path]
    warn(HINT)
    write_atomic(path.with_suffix(".txt"), "\n".join(legend) + "\n")
    return [path, path.with_suffix(".txt")]

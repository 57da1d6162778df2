"""Draws where a translator looks: attention as a heat map, with a font that has the characters, or with numbers for them."""

from pathlib import Path

from matplotlib import font_manager
from torch import Tensor

import utils
from utils import warn, write_atomic

HINT = (
    "no installed font has the characters of these sentences, so the pictures have numbers in their place, and the file\n"
    "of the same name in .txt says which is which. A free font with Chinese: Noto Sans CJK (Debian and Ubuntu: apt install\n"
    "fonts-noto-cjk); or name a font file with --font FILE."
)


def draw(rows: list[tuple[list[str], list[str], Tensor]], path: Path, named: str | None = None) -> list[Path]:
    """Draws (source tokens, translation tokens, weights (T, S)) side by side into `path` -> the files written."""
    widths = [max(4, len(source)) for source, _, _ in rows]
    size = 2 + 0.42 * sum(widths) + 1.2 * len(rows), 1.8 + 0.38 * max(len(target) for _, target, _ in rows)
    figure, legend = utils.new_figure(*size), []  # which draws a $ as it is
    axes = figure.subplots(1, len(rows), squeeze=False, width_ratios=widths)[0]
    for axis, (source, target, weights) in zip(axes, rows, strict=True):
        axis.imshow(weights.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for tokens, write in ((source, axis.set_xticks), (target, axis.set_yticks)):
            tokens = [token.strip(" ▁") for token in tokens]
            font = utils.find_font("".join(tokens), named)
            if font is None:  # boxes in place of characters would tell nobody anything
                legend.append("  ".join(f"{i} {token}" for i, token in enumerate(tokens, 1)))
                tokens = [str(i) for i in range(1, len(tokens) + 1)]
            write(
                range(len(tokens)), tokens, fontproperties=font and font_manager.FontProperties(fname=font), fontsize=11
            )
        axis.tick_params(axis="x", rotation=90, top=True, labeltop=True, bottom=False, labelbottom=False)
    utils.save_figure(figure, path)
    if not legend:
        return [path]
    warn(HINT)
    write_atomic(path.with_suffix(".txt"), "\n".join(legend) + "\n")
    return [path, path.with_suffix(".txt")]

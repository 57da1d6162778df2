"""What several lessons' figures are drawn with. A notebook takes over the source of what its figures use."""


def blocks(axis, values, x: float, y: float, solid=None, colour: str = "tab:blue") -> None:
    """Draws a table of numbers (rows of a list) as squares of side 1, its upper left corner at (x, y); y grows downwards.

    Where `solid` (rows of True and False) is False, a square is pale: a copy, or padding.
    """
    from matplotlib.patches import Rectangle

    for i, row in enumerate(values):
        for j, value in enumerate(row):
            alpha = 0.6 if solid is None or solid[i][j] else 0.15
            axis.add_patch(
                Rectangle((x + j, y + i), 1, 1, facecolor=colour, alpha=alpha, edgecolor="white", linewidth=1.5)
            )
            axis.text(x + j + 0.5, y + i + 0.5, f"{value:g}", ha="center", va="center", fontsize=9)


def bare(axis, width: float, height: float) -> None:
    """Makes an axis a sheet of squares: (0, 0) in the upper left corner, no ticks."""
    axis.set(xlim=(-0.2, width), ylim=(height, -0.2), aspect="equal")
    axis.axis("off")


def save_animation(figures, path, milliseconds: int = 700):
    """Figures of the same size -> a GIF that shows one after the other, for ever."""
    import io

    from PIL import Image

    frames = []
    for figure in figures:
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=90)
        frames.append(Image.open(file).convert("P", palette=Image.Palette.ADAPTIVE, colors=32))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return path

"""A picture of pictures: rows below one another, each with its name at the left."""

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import make_grid

GAP = 2  # white pixels between pictures


def draw_rows(rows: dict[str, Tensor]) -> Image.Image:
    """name -> (n, 3, S, S) uint8: a row of pictures; shorter rows end in black ones. Without names, no margin for them."""
    rows = {name: row for name, row in rows.items() if len(row)}
    most, side = max(map(len, rows.values())), next(iter(rows.values())).shape[-1]
    filled = [torch.cat([row, row.new_zeros(most - len(row), 3, side, side)]) for row in rows.values()]
    pixels = make_grid(torch.cat(filled), nrow=most, padding=GAP, pad_value=255)
    font = ImageFont.load_default(size=max(10, side // 6))
    margin = max(round(font.getlength(name)) + 12 for name in rows) if any(rows) else 0
    whole = Image.new("RGB", (margin + pixels.shape[2], pixels.shape[1]), "white")
    whole.paste(Image.fromarray(pixels.permute(1, 2, 0).numpy()), (margin, 0))
    for i, name in enumerate(rows):
        middle = GAP + i * (side + GAP) + side / 2
        ImageDraw.Draw(whole).text((6, middle), name, "black", font, anchor="lm")
    return whole

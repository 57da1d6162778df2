import numpy as np

import masks

NAME = "run_lengths"
TITLE = {"en": "Masks as run lengths", "zh": "用游程编码表示掩码"}
TEXT = {
    "en": """
A mask of a picture of 640 x 480 has 307,200 pixels, but few changes between 0 and 1. COCO keeps how long each run is.
Two things surprise: the runs go down the columns, not along the rows; and the first run is one of 0, even if it is
empty. Write `run_lengths(mask)`: mask is (H, W) of 0 and 1, the result a list of integers whose sum is H * W.
""",
    "zh": """
一张 640 x 480 图片的掩码有 307,200 个像素，但 0 与 1 之间的变化很少。COCO 保存每个游程的长度。有两点出人意料：游程沿
列向下，而不是沿行；第一个游程是 0 的，即使它是空的。写出 `run_lengths(mask)`：mask 的形状是 (H, W)，由 0 和 1 组成，
结果是整数的列表，其和为 H * W。
""",
}
HINTS = {
    "en": [
        'mask.ravel(order="F") goes down the columns.',
        "Walk along the pixels with the value and the length of the present run. Begin with value 0 and length 0.",
    ],
    "zh": [
        'mask.ravel(order="F") 沿列向下走。',
        "沿像素走，记住当前游程的值和长度。从值 0、长度 0 开始。",
    ],
}


def counts_of(mask, order="F", leading=True, last=True):
    pixels = mask.astype(bool).ravel(order=order)
    changes = np.flatnonzero(np.diff(pixels)) + 1
    counts = np.diff([0, *changes, pixels.size]).tolist()
    counts = [0, *counts] if leading and pixels[0] else counts
    return counts if last or pixels[-1] else counts[:-1]


SLIPS = {
    "by rows": ({"order": "C"}, "the runs go down the columns, not along the rows", "游程沿列向下，而不是沿行"),
    "no leading 0": (
        {"leading": False},
        "the first pixel is 1: a run of 0 of length 0 comes first",
        "第一个像素是 1：前面有一个长度为 0 的 0 游程",
    ),
    "no last run": (
        {"last": False},
        "the last run is missing: the sum must be H * W",
        "缺少最后一个游程：其和必须是 H * W",
    ),
}


def check(function) -> tuple[str, str] | None:
    rng = np.random.default_rng(0)
    cases = [
        np.array([[0, 1, 1], [0, 0, 1]]),
        np.array([[1, 1, 0], [1, 0, 0]]),
        np.zeros((2, 3), int),
        np.ones((3, 2), int),
    ]
    cases += [(rng.random((7, 5)) < share).astype(int) for share in (0.2, 0.5, 0.9)]
    for mask in cases:
        found, right = list(map(int, function(mask.copy()))), masks.run_lengths(mask)
        if found != right:
            english, chinese = next(
                (words for slip, *words in SLIPS.values() if found == counts_of(mask, **slip)),
                ("0 and 1 take turns, beginning with 0", "0 和 1 交替，从 0 开始"),
            )
            rows = mask.tolist()
            return f"{rows}: {found}, not {right}: {english}", f"{rows}：得到 {found}，应为 {right}：{chinese}"
    return None


MISTAKES = {name: (lambda mask, slip=slip: counts_of(mask, **slip)) for name, (slip, _, _) in SLIPS.items()}

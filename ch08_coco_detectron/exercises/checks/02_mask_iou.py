import numpy as np
from pycocotools import mask as coco_mask

NAME = "mask_iou"
TITLE = {"en": "IoU of masks, and of crowds", "zh": "掩码与人群标注的 IoU"}
TEXT = {
    "en": """
AP of masks stands on one table: how much each found mask overlaps each true one. Write `mask_iou(found, true, crowd)`
without loops over pixels: found (D, H, W) and true (G, H, W) are 0 and 1 in uint8, the result is (D, G). For a true
object: intersection over union. Where crowd (G,) is True, the true mask is a region of many objects; there COCO
divides by the area of the found mask. Two empty masks have 0.
""",
    "zh": """
掩码的 AP 建立在一张表上：每个检测出的掩码与每个真实掩码重叠多少。不用逐像素循环，写出
`mask_iou(found, true, crowd)`：found (D, H, W) 和 true (G, H, W) 是 uint8 的 0 和 1，结果的形状是 (D, G)。对真实目
标：交集除以并集。crowd (G,) 为 True 时，真实掩码是一片有许多目标的区域；这时 COCO 除以检测出的掩码的面积。两个空掩码
的结果是 0。
""",
}
HINTS = {
    "en": [
        "Flatten each mask to a row: the matrix product of found and true.T counts the shared pixels.",
        "uint8 wraps around at 256: convert first. The union is both areas minus the intersection.",
    ],
    "zh": [
        "把每个掩码展平成一行：found 与 true.T 的矩阵乘积就是共有的像素数。",
        "uint8 到 256 就会溢出：先转换类型。并集是两个面积之和减去交集。",
    ],
}


def examples():
    rng = np.random.default_rng(0)
    true, found = np.zeros((3, 40, 50), np.uint8), np.zeros((4, 40, 50), np.uint8)
    true[0, 2:30, 2:30], true[1, 10:40, 20:50] = 1, 1
    true[2] = rng.random((40, 50)) < 0.5
    found[0, 4:32, 3:31], found[1, 20:28, 30:38], found[2] = 1, 1, rng.random((40, 50)) < 0.5
    return found, true, np.array([False, True, False])


def official(found, true, crowd):
    """pycocotools'."""
    rows = [[coco_mask.encode(np.asfortranarray(mask)) for mask in masks] for masks in (found, true)]
    return np.asarray(coco_mask.iou(*rows, crowd.astype(np.uint8).tolist())).reshape(len(found), len(true))


def table(found, true, crowd, crowds=True, union=True, kind=np.float64):
    a, b = (masks.reshape(len(masks), -1).astype(kind) for masks in (found, true))
    both = (a @ b.T).astype(float)
    areas = (found.sum((1, 2))[:, None] + true.sum((1, 2))[None]).astype(float)
    divisor = areas - both if union else areas
    divisor = np.where(crowd[None], found.sum((1, 2))[:, None], divisor) if crowds else divisor
    return both / np.maximum(divisor, 1)


SLIPS = {
    "uint8": (
        {"kind": np.uint8},
        "uint8 wraps around at 256: convert before you multiply",
        "uint8 到 256 溢出：先转换再相乘",
    ),
    "no crowds": (
        {"crowds": False},
        "for a crowd, divide by the found mask's area",
        "对人群标注，应除以检测出的掩码的面积",
    ),
    "no union": ({"union": False}, "the shared pixels are counted twice in the union", "并集里共有的像素被算了两次"),
}


def check(function) -> tuple[str, str] | None:
    found, true, crowd = examples()
    with np.errstate(all="ignore"):
        answer = np.asarray(function(found.copy(), true.copy(), crowd.copy()))
    right = official(found, true, crowd)
    if answer.shape != right.shape:
        return (
            f"the shape is {answer.shape}, not (D, G) = {right.shape}",
            f"形状是 {answer.shape}，应为 (D, G) = {right.shape}",
        )
    if np.isnan(answer).any():
        return "an empty found mask gives nan: 0 / 0", "空的检测掩码得到 nan：0 / 0"
    if np.allclose(answer, right, atol=1e-6):
        return None
    d, g = np.argwhere(~np.isclose(answer, right, atol=1e-6))[0]
    english, chinese = next(
        (words for slip, *words in SLIPS.values() if np.allclose(answer, table(found, true, crowd, **slip))),
        ("pycocotools says so", "这是 pycocotools 的结果"),
    )
    values = f"{answer[d, g]:.4f}", f"{right[d, g]:.4f}"
    return (
        f"found {d}, true {g}: {values[0]}, not {values[1]}: {english}",
        f"检测 {d}、真实 {g}：得到 {values[0]}，应为 {values[1]}：{chinese}",
    )


MISTAKES = {name: (lambda *words, slip=slip: table(*words, **slip)) for name, (slip, _, _) in SLIPS.items()}

NAME = "to_coco"
TITLE = {"en": "VOC's pixels, COCO's boxes", "zh": "VOC 的像素与 COCO 的边界框"}
TEXT = {
    "en": """
VOC counts pixels from 1 and includes the last: the box of a single pixel in the corner is (1, 1, 1, 1). COCO measures
(left, top, width, height) from the corner of the picture: there it is (0, 0, 1, 1). Whoever forgets that gets boxes
without area, or all shifted by a pixel: nobody sees it in a picture, but AP at high thresholds falls, of small
objects most. Write `to_coco(box)`: box is (xmin, ymin, xmax, ymax).
""",
    "zh": """
VOC 从 1 开始数像素，并且包含最后一个：角落里单个像素的边界框是 (1, 1, 1, 1)。COCO 从图片的角量起，格式是 (left, top,
width, height)：同一个框是 (0, 0, 1, 1)。忘记这一点，会得到没有面积的框，或者所有框都偏移一个像素：图片上看不出来，但
高阈值的 AP 会下降，小目标下降最多。写出 `to_coco(box)`：box 是 (xmin, ymin, xmax, ymax)。
""",
}
HINTS = {
    "en": [
        "Pixel 1 covers the ruler from 0 to 1. What does pixel n cover?",
        "left = xmin - 1, but the right edge is xmax, not xmax - 1; the width is the difference of the edges.",
    ],
    "zh": [
        "第 1 个像素覆盖标尺上的 0 到 1。第 n 个像素覆盖哪里？",
        "left = xmin - 1，但右边缘是 xmax，而不是 xmax - 1；宽度是两个边缘之差。",
    ],
}
BOXES = ((1, 1, 1, 1), (1, 1, 500, 375), (10, 20, 12, 24), (48, 240, 195, 371))


def check(function) -> tuple[str, str] | None:
    for box in BOXES:
        xmin, ymin, xmax, ymax = box
        found, right = tuple(function(box)), (xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1)
        if found == right:
            continue
        if len(found) == 4 and found[2:] == (xmax - xmin, ymax - ymin):
            why = "the last pixel belongs to the box", "最后一个像素也属于边界框"
        elif len(found) == 4 and found[:2] == (xmin, ymin):
            why = "VOC's first pixel is 1, COCO's corner is 0", "VOC 的第一个像素是 1，COCO 的角是 0"
        elif found == (xmin - 1, ymin - 1, xmax, ymax):
            why = (
                "these are the right and bottom edges; COCO wants width and height",
                "这是右边缘和下边缘；COCO 要宽和高",
            )
        else:
            why = "count the pixels of the first box: it is one", "数一数第一个框的像素：只有一个"
        return f"{box} gives {found}, not {right}: {why[0]}", f"{box} 得到 {found}，应为 {right}：{why[1]}"
    return None


MISTAKES = {
    "a pixel too small": lambda box: (box[0] - 1, box[1] - 1, box[2] - box[0], box[3] - box[1]),
    "counted from 1": lambda box: (box[0], box[1], box[2] - box[0] + 1, box[3] - box[1] + 1),
    "edges": lambda box: (box[0] - 1, box[1] - 1, box[2], box[3]),
}

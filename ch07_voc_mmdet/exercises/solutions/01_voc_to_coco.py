def to_coco(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """VOC's (xmin, ymin, xmax, ymax), the first and last pixels counted from 1 -> COCO's (left, top, width, height), in which
    the picture's corner is 0, 0."""
    xmin, ymin, xmax, ymax = box
    # VOC names pixels: the first one is 1, and the last one belongs to the box. COCO measures on a ruler that begins at 0.
    # Pixel number n covers n - 1 to n. So the left edge is xmin - 1, and the right edge is xmax itself.
    left, top = xmin - 1, ymin - 1
    return left, top, xmax - left, ymax - top

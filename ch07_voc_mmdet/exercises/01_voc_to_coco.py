def to_coco(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """VOC's (xmin, ymin, xmax, ymax), the first and last pixels counted from 1 -> COCO's (left, top, width, height), in which
    the picture's corner is 0, 0."""
    raise NotImplementedError

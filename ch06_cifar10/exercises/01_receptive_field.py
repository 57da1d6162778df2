def receptive_field(layers: list[tuple[int, int]]) -> int:
    """The (kernel size, stride) of convolutions and poolings, first to last -> how many pixels of the picture a unit of the
    last feature map sees in one direction."""
    raise NotImplementedError

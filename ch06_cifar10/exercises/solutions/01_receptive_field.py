def receptive_field(layers: list[tuple[int, int]]) -> int:
    field, step = 1, 1  # a pixel sees itself; neighbours are one pixel apart
    for kernel, stride in layers:
        # A kernel joins `kernel` neighbours. The first one's field is there already; each further one adds `step` pixels.
        field += (kernel - 1) * step
        # Only now: this layer's own kernel still read units that were `step` apart. The next layer's are further apart.
        step *= stride
    return field

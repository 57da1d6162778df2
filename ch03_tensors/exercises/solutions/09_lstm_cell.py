from torch import Tensor


def lstm_cell(x: Tensor, h: Tensor, c: Tensor, w_x: Tensor, w_h: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """One step: input x (N, D), hidden h (N, H) and cell c (N, H); w_x (4H, D), w_h (4H, H), b (4H,), whose rows are
    those of the input gate, the forget gate, the candidate and the output gate -> the new h and c, (N, H) each."""
    i, f, g, o = (x @ w_x.T + h @ w_h.T + b).chunk(4, 1)  # one product for all gates
    # The cell is a sum: old times how much is kept, plus new times how much is let in. A sum passes gradients on over
    # many steps (they are only multiplied by f), where a plain network multiplies them by its weights each time.
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()  # gates are shares, 0 to 1; the candidate is a value, -1 to 1
    h = o.sigmoid() * c.tanh()  # of the new cell; tanh keeps what is shown within -1 to 1
    return h, c

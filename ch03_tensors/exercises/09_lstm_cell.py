from torch import Tensor


def lstm_cell(x: Tensor, h: Tensor, c: Tensor, w_x: Tensor, w_h: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """One step: input x (N, D), hidden h (N, H) and cell c (N, H); w_x (4H, D), w_h (4H, H), b (4H,), whose rows are
    those of the input gate, the forget gate, the candidate and the output gate -> the new h and c, (N, H) each."""
    raise NotImplementedError

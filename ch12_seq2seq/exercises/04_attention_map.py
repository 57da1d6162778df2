from torch import Tensor


def attention_maps(queries: Tensor, keys: Tensor, padding: Tensor, heads: int) -> Tensor:
    """Queries (N, T, D), keys (N, S, D), padding (N, S), True where there is no word -> the weights (N, heads, T, S) of each
    head, of which a row is drawn as a row of the attention map: it sums to 1."""
    raise NotImplementedError

from torch import Tensor


def attention_maps(queries: Tensor, keys: Tensor, padding: Tensor, heads: int) -> Tensor:
    """Queries (N, T, D), keys (N, S, D), padding (N, S), True where there is no word -> the weights (N, heads, T, S) of each
    head, of which a row is drawn as a row of the attention map: it sums to 1."""
    # Each head has its own part of the width: (N, T, D) -> (N, T, heads, D / heads) -> (N, heads, T, D / heads).
    q = queries.unflatten(2, (heads, -1)).transpose(1, 2)
    k = keys.unflatten(2, (heads, -1)).transpose(1, 2)
    # A score is a sum of D / heads products. With values of variance 1 it has the variance D / heads: the wider, the larger
    # the scores, and softmax of large scores is 0 and 1. Divided by the root, the variance is 1 again, whatever the width.
    scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
    return scores.masked_fill(padding[:, None, None], float("-inf")).softmax(3)

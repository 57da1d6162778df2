import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Logits (N, K), float32, of any size -> probabilities (N, K), float32; each row sums to 1."""
    # The same number subtracted from all logits of a row changes no probability. With the row's largest, every exponent is 0 or
    # less: nothing overflows, and the sum is at least 1. The largest of the whole batch would not do: in a row far
    # below it every exp is 0, and 0 / 0 is nan. And one client's picture must not change another's answer.
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)

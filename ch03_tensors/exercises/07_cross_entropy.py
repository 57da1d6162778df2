from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (N, K), of any size, and class numbers (N,) -> the mean of -log softmax(logits)[label], one number."""
    raise NotImplementedError

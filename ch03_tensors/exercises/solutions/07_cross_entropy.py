from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (N, K), of any size, and class numbers (N,) -> the mean of -log softmax(logits)[label], one number."""
    # log softmax(z)_k = z_k - log sum exp z. exp overflows from 89 on in float32, so the largest logit is subtracted first; it
    # cancels out. Then the largest exponent is exp 0 = 1: nothing overflows, and the sum is never 0.
    shifted = logits - logits.amax(1, keepdim=True)
    log_p = shifted - shifted.exp().sum(1, keepdim=True).log()
    return -log_p.gather(1, labels[:, None]).mean()

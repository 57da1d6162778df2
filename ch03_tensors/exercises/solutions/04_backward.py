from torch import Tensor


def gradients(x: Tensor, w: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Of y = relu(x @ w), with x (N, D), w (D, K), and the gradient g (N, K) of the loss with respect to y -> the
    gradients with respect to x (N, D) and w (D, K). Without autograd."""
    # relu passes the gradient where its input was positive, and stops it elsewhere.
    g = g * (x @ w > 0)
    # y[n, k] = sum over d of x[n, d] w[d, k]. So x[n, d] acts on all k of its row, w[d, k] on all n of its column: both
    # gradients are sums over what the other dimension is, and sums of products are matrix products. The shapes leave no choice.
    return g @ w.T, x.T @ g

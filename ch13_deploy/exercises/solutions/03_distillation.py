from torch import Tensor


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Logits of both (N, K) -> T^2 times the mean over the rows of KL(teacher, student), both softened by T; one number."""
    # Divided by T, the logits are nearer to each other: what the teacher thinks of the wrong classes becomes visible,
    # and that is what the student can learn beyond the labels.
    log_p = (teacher / temperature).log_softmax(1)
    log_q = (student / temperature).log_softmax(1)
    kl = (log_p.exp() * (log_p - log_q)).sum(1)  # the teacher's probabilities weigh
    # A gradient with respect to the logits has 1 / T from the division, and 1 / T again as softened answers differ less. T^2
    # keeps its size, so that another temperature is no other learning rate.
    return temperature**2 * kl.mean()

from torch import Tensor


def macro_f1(said: Tensor, true: Tensor, num_classes: int) -> float:
    """Answers and labels, class numbers (N,) each -> the mean of the classes' F1, over those that are in either."""
    scores = []
    for k in range(num_classes):
        right = ((said == k) & (true == k)).sum().item()
        both = (said == k).sum().item() + (true == k).sum().item()
        # F1 = 2 PR / (P + R) with P = right / said and R = right / true is 2 right / (said + true): no 0 / 0 where a class
        # was never said. A class that is in neither has no score; 0 would punish for texts that are not there.
        if both:
            scores.append(2 * right / both)
    return sum(scores) / len(scores)  # each class weighs the same, however rare: that is the point of macro

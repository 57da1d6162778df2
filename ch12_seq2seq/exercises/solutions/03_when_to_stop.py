def may_stop(unfinished: list[float], finished: list[tuple[float, int]], limit: int, penalty: float) -> bool:
    """Whether beam search may stop: no unfinished translation can still beat the best finished one.

    unfinished   log-probabilities of those that go on
    finished     (log-probability, length) of those that have ended
    limit        the greatest length; penalty: the power in lp(n) = ((5 + n) / 6) ** penalty

    A translation's rank is its log-probability / lp(its length); the highest rank is the best."""
    if not unfinished:
        return True
    if not finished:
        return False  # there is no answer yet

    def lp(length: int) -> float:
        return ((5 + length) / 6) ** penalty

    best = max(score / lp(length) for score, length in finished)  # by rank: the likeliest may be a shorter, worse one
    # A bound on what is to come. The log-probability of a longer translation can only fall, so it is at most what it is now;
    # and as it is negative, the largest divisor gives the highest rank: lp(limit), not lp of the length now.
    return max(unfinished) / lp(limit) <= best

def may_stop(unfinished: list[float], finished: list[tuple[float, int]], limit: int, penalty: float) -> bool:
    """Whether beam search may stop: no unfinished translation can still beat the best finished one.

    unfinished   log-probabilities of those that go on
    finished     (log-probability, length) of those that have ended
    limit        the greatest length; penalty: the power in lp(n) = ((5 + n) / 6) ** penalty

    A translation's rank is its log-probability / lp(its length); the highest rank is the best."""
    raise NotImplementedError

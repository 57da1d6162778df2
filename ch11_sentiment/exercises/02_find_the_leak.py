def leaks(texts: list[str], labels: list[int], purity: float = 0.95, least: int = 5) -> list[str]:
    """The emoticons that give the label away: those in square brackets that stand in at least `least` texts, of which at least
    the share `purity` has one label. Each once, the one in most texts first; ties by name."""
    raise NotImplementedError

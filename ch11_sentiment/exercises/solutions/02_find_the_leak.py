import re
from collections import Counter

EMOTICON = re.compile(r"\[[^\[\]\s]{1,8}\]")


def leaks(texts: list[str], labels: list[int], purity: float = 0.95, least: int = 5) -> list[str]:
    """The emoticons that give the label away: those in square brackets that stand in at least `least` texts, of which at least
    the share `purity` has one label. Each once, the one in most texts first; ties by name."""
    counts: dict[str, Counter] = {}
    for text, label in zip(texts, labels, strict=True):
        # A set: a text that says [泪] five times is still one text, and one piece of evidence.
        for emoticon in set(EMOTICON.findall(text)):
            counts.setdefault(emoticon, Counter())[label] += 1
    # Purity alone is not enough: an emoticon that stands in one text is always "pure", by chance.
    found = [
        emoticon
        for emoticon, labels_of in counts.items()
        if labels_of.total() >= least and max(labels_of.values()) >= purity * labels_of.total()
    ]
    return sorted(found, key=lambda emoticon: (-counts[emoticon].total(), emoticon))

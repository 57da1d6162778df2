"""What counting words achieves: the baselines every network has to beat (course 11-4: bag of words, TF-IDF).

    python test.py --baselines      # beside the network, on the same tokens and the same split

Counts or TF-IDF of single tokens, or of runs of up to `longest` tokens too, with naive Bayes or logistic regression. They
learn from the training part; which strength of regularisation is best is seen on the validation part.
"""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from tqdm import tqdm

from datasets import PARTS, Corpus
from text import EMOTICON

STRENGTHS = {"naive Bayes": (0.1, 0.3, 1.0), "logistic regression": (0.1, 0.5, 2.0, 8.0)}  # alpha, and C


def fit(kind: str, strength: float, features, labels):
    if kind == "naive Bayes":
        return MultinomialNB(alpha=strength).fit(features, labels)
    with warnings.catch_warnings():  # 100 iterations are plenty for a score
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=100).fit(features, labels)


def features_of(corpus: Corpus, stop_words: list[str], longest: int, tfidf: bool) -> dict:
    """-> part: sparse matrix (texts, features). The vocabulary and the document frequencies are the training part's."""
    dropped = set(stop_words)
    lists = {part: [[t for t in corpus.tokens(i) if t not in dropped] for i in corpus.rows(part)] for part in PARTS}
    same = {"tokenizer": list, "preprocessor": list, "token_pattern": None}  # the texts are lists of tokens already
    counter = CountVectorizer(ngram_range=(1, longest), min_df=2, **same)
    counts = {part: (counter.fit_transform if part == "train" else counter.transform)(lists[part]) for part in PARTS}
    if not tfidf:
        return counts
    weigh = TfidfTransformer(sublinear_tf=True).fit(counts["train"])
    return {part: weigh.transform(matrix) for part, matrix in counts.items()}


def run(corpus: Corpus, stop_words: list[str] = (), longest: int = 2) -> list[dict]:
    """-> a row a baseline: name, strength chosen on validation texts, accuracy there and on the test part."""
    labels = {part: corpus.labels[corpus.rows(part)] for part in PARTS}
    rows = []
    if any(map(EMOTICON.fullmatch, corpus.words)):
        features = features_of(corpus, [word for word in corpus.words if not EMOTICON.fullmatch(word)], 1, tfidf=False)
        rows.append(best_of("naive Bayes", STRENGTHS["naive Bayes"], features, labels))
        rows[-1]["name"] = "emoticons alone, naive Bayes"  # the leak: nothing else of the text is looked at
    with tqdm(total=8, desc="baselines", leave=False, disable=None) as bar:
        for length in (1, longest):
            for tfidf in (False, True):
                features = features_of(corpus, stop_words, length, tfidf)
                for kind, strengths in STRENGTHS.items():
                    rows.append(best_of(kind, strengths, features, labels))
                    what = "single tokens" if length == 1 else f"1 to {length} tokens"
                    rows[-1]["name"] = f"{('counts', 'TF-IDF')[tfidf]} of {what}, {kind}"
                    bar.update()
    return rows


def best_of(kind: str, strengths: tuple, features: dict, labels: dict) -> dict:
    """The strength that is best on the validation texts, and what it gives on the test texts."""
    models = {strength: fit(kind, strength, features["train"], labels["train"]) for strength in strengths}
    scores = {s: float(np.mean(m.predict(features["val"]) == labels["val"])) for s, m in models.items()}
    best = max(scores, key=scores.get)
    accuracy = float(np.mean(models[best].predict(features["test"]) == labels["test"]))
    return {"name": kind, "strength": best, "val_accuracy": scores[best], "accuracy": accuracy}


def print_table(rows: list[dict]) -> None:
    print(f"{'baseline':<44}{'strength':>9}{'val':>9}{'test':>9}")
    for row in rows:
        print(f"{row['name']:<44}{row['strength']:>9g}{row['val_accuracy']:>9.4f}{row['accuracy']:>9.4f}")

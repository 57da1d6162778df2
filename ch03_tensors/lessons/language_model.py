"""Language models: n-grams, a neural one, and perplexity, on the notes' two sentences about 小明.

    python -m lessons language_model
    python -m lessons                          (back to the list)

A language model (语言模型) gives a probability to each next word, and so to each sentence. Sentence A of the notes has
its words in order, sentence B has the same words shuffled; a model must find A more probable.
"""

import math
from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TITLE = "Language models"
TITLE_ZH = "NLP 基础概念：语言模型"
LESSONS = {"10-8": "NLP基础概念介绍"}
FORMULAS = {
    "NgramModel": r"P(w \mid c) = \frac{n(c, w) + \alpha}{n(c) + \alpha |V|}",
    "perplexity": r"\exp\left( -\frac{1}{N} \sum_t \log P(w_t \mid w_{<t}) \right)",
}

SENTENCE_A = "今天 小明 去 超市 买 了 一盒 牛奶"
SENTENCE_B = "今天 去 一盒 小明 买 了 超市 牛奶"
START, END = "<s>", "</s>"
# A corpus made for this lesson, cut into words. Sentence A is not in it as a whole.
CORPUS = (
    "今天 小明 去 学校",
    "昨天 小明 去 超市 买 了 面包",
    "小红 去 超市 买 了 一盒 鸡蛋",
    "小红 今天 去 超市",
    "妈妈 买 了 一盒 牛奶",
    "小明 喝 了 一盒 牛奶",
    "今天 小明 吃 了 早饭",
    "昨天 小红 买 了 牛奶",
    "妈妈 今天 吃 了 早饭",
)


def ngrams(words: list[str], n: int) -> list[tuple[str, ...]]:
    """Before networks, a language was learned by counting neighbours; this is still the baseline. (10-8)

    All n words in a row; n = 1, 2, 3: unigram, bigram, trigram.

    >>> ngrams("今天 小明 去 超市".split(), 2)
    [('今天', '小明'), ('小明', '去'), ('去', '超市')]
    >>> ngrams("今天 小明 去 超市".split(), 3)
    [('今天', '小明', '去'), ('小明', '去', '超市')]
    """
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


class NgramModel:
    """Speech recognition and keyboards must know which word is likely next. (10-8)

    P(word | the n - 1 words before), by counting.

    The Markov assumption: words further back do not matter. `smoothing` is added to each count, so that what was never
    seen is improbable and not impossible (Laplace for 1).

    >>> model = NgramModel(CORPUS, n=2, smoothing=0.1)
    >>> round(model.probability(("买",), "了"), 3), round(model.probability(("买",), "早饭"), 3)
    (0.707, 0.017)

    First use: the next word. After 今天 小明 去 超市 comes 买, not 早饭.

    >>> model.most_likely(("超市",), 2)
    ['买', '</s>']

    Second use: the probability of a sentence. A is more like a sentence than B:

    >>> for sentence in (SENTENCE_A, SENTENCE_B):
    ...     print(sentence, f"{model.log_probability(sentence.split()):.1f}")
    今天 小明 去 超市 买 了 一盒 牛奶 -7.8
    今天 去 一盒 小明 买 了 超市 牛奶 -24.4

    Without smoothing, one pair of words that was never seen makes the whole product 0:

    >>> bare = NgramModel(CORPUS, n=2, smoothing=0.0)
    >>> round(bare.log_probability(SENTENCE_A.split()), 1), bare.log_probability(SENTENCE_B.split())
    (-4.8, -inf)
    """

    def __init__(self, sentences: tuple[str, ...], n: int, smoothing: float):
        self.n, self.smoothing = n, smoothing
        padded = [self.pad(sentence.split()) for sentence in sentences]
        self.vocabulary = sorted({word for words in padded for word in words} - {START})
        self.counts = Counter(gram for words in padded for gram in ngrams(words, n))
        self.contexts = Counter()
        for gram, count in self.counts.items():
            self.contexts[gram[:-1]] += count

    def pad(self, words: list[str]) -> list[str]:
        """The first word too has something before it, and the end is a word like any other.

        >>> NgramModel(CORPUS, 3, 0.1).pad(["今天"])
        ['<s>', '<s>', '今天', '</s>']
        """
        return [START] * (self.n - 1) + words + [END]

    def probability(self, context: tuple[str, ...], word: str) -> float:
        """P(word | context) in [0, 1]; over the vocabulary the sum is 1.

        >>> model = NgramModel(CORPUS, 2, 0.1)
        >>> round(sum(model.probability(("买",), word) for word in model.vocabulary), 6)
        1.0
        """
        total = self.contexts[context] + self.smoothing * len(self.vocabulary)
        return (self.counts[(*context, word)] + self.smoothing) / total if total else 0.0

    def most_likely(self, context: tuple[str, ...], count: int) -> list[str]:
        """The `count` most probable next words.

        >>> NgramModel(CORPUS, 2, 0.1).most_likely(("一盒",), 1)
        ['牛奶']
        """
        return sorted(self.vocabulary, key=lambda word: -self.probability(context, word))[:count]

    def log_probability(self, words: list[str]) -> float:
        """log P of a sentence, natural logarithm: a sum of logarithms, for a product of many small numbers underflows.

        >>> 0.01**200, round(200 * math.log(0.01), 1)
        (0.0, -921.0)
        """
        probabilities = [self.probability(gram[:-1], gram[-1]) for gram in ngrams(self.pad(words), self.n)]
        return sum(math.log(p) for p in probabilities) if all(probabilities) else -math.inf


def perplexity(model: NgramModel, sentence: str) -> float:
    """Two language models need one number to be compared by. (10-8)

    exp(-log P / number of words): how many words the model hesitates between, on average. Less is better.

    >>> for n in (1, 2, 3):
    ...     model = NgramModel(CORPUS, n, smoothing=0.1)
    ...     print(n, [round(perplexity(model, sentence), 1) for sentence in (SENTENCE_A, SENTENCE_B)])
    1 [13.3, 13.3]
    2 [2.4, 15.1]
    3 [2.6, 20.4]

    A unigram model cannot tell them apart: the words are the same. A model that knows nothing wavers among all words:

    >>> ignorant = NgramModel(CORPUS, 1, smoothing=1e9)
    >>> round(perplexity(ignorant, SENTENCE_A), 1), len(ignorant.vocabulary)
    (18.0, 18)
    """
    words = sentence.split()
    return math.exp(-model.log_probability(words) / (len(words) + 1))


class NeuralLanguageModel(nn.Module):
    """Counting knows nothing of pairs that it never saw; vectors of words do. (10-8)

    A neural bigram model: embed the word, one hidden layer, softmax over the next. `(N,) -> (N, V)`.

    Bengio et al., 2003 (there with more words before). Words used alike get similar vectors, so that it can know
    something of pairs that it never saw. A recurrent one would carry a state instead of one word.

    >>> model, words = train_neural(steps=150)
    >>> perplexities = [neural_perplexity(model, words, sentence) for sentence in (SENTENCE_A, SENTENCE_B)]
    >>> perplexities[0] < 5, perplexities[1] > 50
    (True, True)
    """

    def __init__(self, vocabulary_size: int, width: int = 16):
        super().__init__()
        self.table = nn.Embedding(vocabulary_size, width)
        self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, vocabulary_size)

    def forward(self, previous: Tensor) -> Tensor:
        return self.out(torch.tanh(self.hidden(self.table(previous))))


def train_neural(steps: int, seed: int = 0) -> tuple[NeuralLanguageModel, list[str]]:
    """The counts become training data: a pair is an input and its label. (10-8)

    Trains on all pairs of the corpus; -> (model, its words).

    >>> len(train_neural(steps=1)[1])
    19
    """
    counted = NgramModel(CORPUS, 2, 0.0)
    words = [START, *counted.vocabulary]
    pairs = torch.tensor([[words.index(a), words.index(b)] for a, b in counted.counts.elements()])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = NeuralLanguageModel(len(words))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(pairs[:, 0]), pairs[:, 1]).backward()
        optimizer.step()
    return model, words


def neural_perplexity(model: NeuralLanguageModel, words: list[str], sentence: str) -> float:
    """The same measure for both kinds of model, so that they can be compared. (10-8)

    Perplexity is the exponential of the cross-entropy.

    >>> model, words = train_neural(steps=0)
    >>> abs(neural_perplexity(model, words, SENTENCE_A) - len(words)) < 10  # untrained: about all words
    True
    """
    tokens = torch.tensor([words.index(word) for word in [START, *sentence.split(), END]])
    with torch.no_grad():
        return F.cross_entropy(model(tokens[:-1]), tokens[1:]).exp().item()


def tf_idf(sentences: tuple[str, ...]) -> tuple[Tensor, list[str]]:
    """To search and sort texts, a text must become a vector; the oldest way is still hard to beat. (10-8)

    A sentence as a vector: how often each word stands in it, times how rare the word is. `-> (N, V), words`.

    Before embeddings this was the input of most text classifiers; it knows no order of words.

    >>> table, words = tf_idf((SENTENCE_A, SENTENCE_B, "妈妈 今天 吃 了 早饭"))
    >>> torch.equal(table[0], table[1])
    True
    >>> [words[i] for i in table[2].argsort(descending=True)[:3].sort().values]
    ['吃', '妈妈', '早饭']
    """
    words = sorted({word for sentence in sentences for word in sentence.split()})
    counts = torch.tensor([[sentence.split().count(word) for word in words] for sentence in sentences]).float()
    idf = torch.log(len(sentences) / (counts > 0).sum(dim=0))
    return counts / counts.sum(dim=1, keepdim=True) * idf, words

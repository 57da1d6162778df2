"""BERT's two exercises: masked words and next sentences.

    python -m lessons bert
    python -m lessons language_model           (the next one)

BERT (Devlin et al., 2019) is a Transformer encoder that learns from plain text, without labels: some words are hidden
and must be guessed from both sides (MLM), and of two sentences it must say whether the second followed the first (NSP).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TITLE = "BERT: masked words, next sentences"
TITLE_ZH = "BERT：MLM 与 NSP"
LESSONS = {"10-7": "BERT结构"}

PAD, CLS, SEP, MASK = range(4)
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
IGNORE = -100  # the label that torch's cross_entropy leaves out
STORY = (
    "今天 小明 去 超市",
    "他 买 了 一盒 牛奶",
    "牛奶 很 新鲜",
    "昨天 小红 去 学校",
    "她 学 了 一首 歌",
    "歌 很 好听",
)


def vocabulary(sentences: tuple[str, ...] = STORY) -> list[str]:
    """A network reads numbers, so each word needs one, and the special signs too. (10-7)

    The special tokens, then each word once.

    >>> words = vocabulary()
    >>> len(words), words[:6]
    (23, ['[PAD]', '[CLS]', '[SEP]', '[MASK]', '今天', '小明'])
    """
    return [*SPECIAL, *dict.fromkeys(word for sentence in sentences for word in sentence.split())]


def sentence_pairs(sentences: tuple[str, ...], generator: torch.Generator) -> list[tuple[str, str, int]]:
    """Labels cost money; which sentence follows which is known for free. (10-7)

    Next-sentence prediction (NSP): half the pairs follow one another (1), half do not (0).

    >>> for first, second, follows in sentence_pairs(STORY, torch.Generator().manual_seed(3)):
    ...     print(follows, first, "/", second)
    1 今天 小明 去 超市 / 他 买 了 一盒 牛奶
    1 他 买 了 一盒 牛奶 / 牛奶 很 新鲜
    1 牛奶 很 新鲜 / 昨天 小红 去 学校
    0 昨天 小红 去 学校 / 他 买 了 一盒 牛奶
    0 她 学 了 一首 歌 / 昨天 小红 去 学校
    """
    pairs = []
    for i in range(len(sentences) - 1):
        follows = int(torch.rand(1, generator=generator) < 0.5)
        others = [j for j in range(len(sentences)) if j not in (i, i + 1)]
        other = others[torch.randint(len(others), (1,), generator=generator)]
        pairs.append((sentences[i], sentences[i + 1 if follows else other], follows))
    return pairs


def encode_pairs(pairs: list[tuple[str, str, int]], words: list[str]) -> dict[str, Tensor]:
    """Pairs of different lengths must become one table, with a mark for who said what. (10-7)

    [CLS] first [SEP] second [SEP], padded. N pairs `-> tokens (N, T), segments (N, T), follows (N,)`.

    Segment 0 is the first sentence, 1 the second.

    >>> batch = encode_pairs([(STORY[0], STORY[1], 1), (STORY[2], STORY[5], 0)], vocabulary())
    >>> batch["tokens"]
    tensor([[ 1,  4,  5,  6,  7,  2,  8,  9, 10, 11, 12,  2],
            [ 1, 12, 13, 14,  2, 21, 13, 22,  2,  0,  0,  0]])
    >>> batch["segments"]
    tensor([[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1],
            [0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0]])
    """
    number = {word: i for i, word in enumerate(words)}
    tokens, segments = [], []
    for first, second, _ in pairs:
        one = [CLS, *(number[word] for word in first.split()), SEP]
        two = [*(number[word] for word in second.split()), SEP]
        tokens.append(torch.tensor(one + two))
        segments.append(torch.tensor([0] * len(one) + [1] * len(two)))
    return {
        "tokens": nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=PAD),
        "segments": nn.utils.rnn.pad_sequence(segments, batch_first=True),
        "follows": torch.tensor([follows for _, _, follows in pairs]),
    }


def mask_words(tokens: Tensor, vocabulary_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """To learn a language from plain text, hide words and guess them. (10-7)

    Masked language model (MLM): 15 % of the words must be guessed. `(N, T) -> inputs, labels (N, T)`.

    Of those, 80 % become [MASK], 10 % another word, 10 % stay: real input has no [MASK], and the model must not learn
    to look for it. The label is the true word there and IGNORE everywhere else. Special tokens are never chosen.

    >>> tokens = torch.randint(4, 1000, (100, 100), generator=torch.Generator().manual_seed(0))
    >>> inputs, labels = mask_words(tokens, 1000, torch.Generator().manual_seed(1))
    >>> chosen = labels != IGNORE
    >>> print(f"chosen {chosen.float().mean():.0%}, of these [MASK] {(inputs[chosen] == MASK).float().mean():.0%}, "
    ...       f"unchanged {(inputs[chosen] == tokens[chosen]).float().mean():.0%}")
    chosen 15%, of these [MASK] 81%, unchanged 9%
    >>> torch.equal(inputs[~chosen], tokens[~chosen]), torch.equal(labels[chosen], tokens[chosen])
    (True, True)
    """
    chosen = (torch.rand(tokens.shape, generator=generator) < 0.15) & (tokens >= len(SPECIAL))
    labels = torch.where(chosen, tokens, IGNORE)
    fate = torch.rand(tokens.shape, generator=generator)
    random_words = torch.randint(len(SPECIAL), vocabulary_size, tokens.shape, generator=generator)
    inputs = torch.where(chosen & (fate < 0.8), MASK, tokens)
    return torch.where(chosen & (fate >= 0.9), random_words, inputs), labels


class TinyBert(nn.Module):
    """The whole model is small enough to read at one go. (10-7)

    Embeddings of word, place and segment, a Transformer, and two heads.

    `tokens (N, T), segments (N, T) -> word logits (N, T, V), follows logits (N, 2)`. The second head looks at [CLS].

    >>> words = vocabulary()
    >>> batch = encode_pairs(sentence_pairs(STORY, torch.Generator().manual_seed(3)), words)
    >>> model = TinyBert(len(words))
    >>> word_logits, follows_logits = model(batch["tokens"], batch["segments"])
    >>> word_logits.shape, follows_logits.shape
    (torch.Size([5, 12, 23]), torch.Size([5, 2]))
    """

    def __init__(self, vocabulary_size: int, width: int = 32, length: int = 32):
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, width, padding_idx=PAD)
        self.places, self.segments = nn.Embedding(length, width), nn.Embedding(2, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.word_head, self.follows_head = nn.Linear(width, vocabulary_size), nn.Linear(width, 2)

    def forward(self, tokens: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.words(tokens) + self.places(places) + self.segments(segments)
        x = self.encoder(x, src_key_padding_mask=tokens == PAD)
        return self.word_head(x), self.follows_head(x[:, 0])


def pretrain(steps: int, seed: int = 0) -> list[float]:
    """Does it learn? Six sentences are enough to see that. (10-7)

    Both exercises at once: the sum of the two losses, new masks and pairs at each step.

    Six sentences are learnt by heart, which shows that the exercises can be learnt, and no more than that.

    >>> losses = pretrain(steps=120)
    >>> sum(losses[-10:]) < 0.5 * sum(losses[:10])
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words = vocabulary()
        model = TinyBert(len(words))
    generator = torch.Generator().manual_seed(seed)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for _ in range(steps):
        pairs = [pair for _ in range(4) for pair in sentence_pairs(STORY, generator)]
        batch = encode_pairs(pairs, words)
        inputs, labels = mask_words(batch["tokens"], len(words), generator)
        word_logits, follows_logits = model(inputs, batch["segments"])
        loss = F.cross_entropy(word_logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
        loss = loss + F.cross_entropy(follows_logits, batch["follows"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses

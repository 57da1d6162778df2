"""weibo_senti_100k, your own table of texts, or the built-in sample -> train / val / test, as numbers of tokens.

    python datasets.py                                  # gets the data ready (or the sample) and describes them
    python datasets.py --data my.csv --tokenizer char   # any table that tables.py reads, with a text and a label column

Tokenised text is cached (data/cache/tokens-HASH.npz): a table of 72,000 rows takes seconds once, then a fraction of one.
"""

import csv
import hashlib
import io
import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

import sample
import tables
import text as texts
import utils
from text import PAD, UNK
from utils import Number, fail, fingerprint, rank, say, warn, world, write_atomic

PARTS = ("train", "val", "test")
NUMBERED = {("0", "1"): ["negative", "positive"], ("-1", "0", "1"): ["negative", "neutral", "positive"]}
DATA_HELP = "auto (default): weibo if it can be had, else sample; weibo; sample; or a .csv, .tsv, .jsonl or .json file"
WEIBO_ROWS = 119_988
SOURCES = {
    "weibo_senti_100k.csv": (
        "https://hf-mirror.com/datasets/dirtycomputer/weibo_senti_100k/resolve/main/weibo_senti_100k.csv",
        "https://huggingface.co/datasets/dirtycomputer/weibo_senti_100k/resolve/main/weibo_senti_100k.csv",
        "https://gitee.com/dogecheng/python/raw/master/data/weibo_senti_100k.csv",
    ),
    "hit_stopwords.txt": (
        "https://raw.githubusercontent.com/goto456/stopwords/bf8b03b9d3709222804ae89578156d1a0d8bf2b2/hit_stopwords.txt",
        "https://cdn.jsdelivr.net/gh/goto456/stopwords@bf8b03b9d3709222804ae89578156d1a0d8bf2b2/hit_stopwords.txt",
    ),
}
STOP_WORDS_SHA256 = "84e526454db0245cab0d167df067f00298d271ad2c86391d45f5e880c422cbae"
START_METHOD = "fork" if sys.platform == "linux" else "spawn"  # of processes: elsewhere forks are missing or unsafe
CACHE_VERSION = 2  # to be raised when this file, tables.py or text.py comes to give other tokens for the same table


@dataclass
class Corpus:
    """A table of texts after cleaning, segmentation and splitting. Row i's tokens are words[ids[starts[i] : starts[i + 1]]]."""

    name: str
    classes: list[str]
    words: list[str]
    ids: np.ndarray  # (tokens,) int32
    starts: np.ndarray  # (rows + 1,) int64
    labels: np.ndarray  # (rows,) int64; of a table with several labels a text, (rows, classes) int64 of 0 and 1
    parts: np.ndarray  # (rows,) int8, a number of PARTS
    lines: np.ndarray  # (rows,) int64, where in the file
    raw: list[str]  # the texts as they were
    notes: list[str] = field(default_factory=list)  # what was left out, and why

    def rows(self, part: str) -> np.ndarray:
        return np.flatnonzero(self.parts == PARTS.index(part))

    def split(self, data: str) -> dict:
        """What split.json holds: which texts train, validate and test, by fingerprint and line. -1 is what --limit left out."""
        numbers = {**dict(enumerate(PARTS)), -1: "unused"}
        samples: dict = {name: {} for name in numbers.values()}
        for text, part, line in zip(self.raw, self.parts.tolist(), self.lines.tolist(), strict=True):
            samples[numbers[part]][fingerprint(text.encode("utf-8", "surrogatepass"))] = f"line {line}"
        return samples | {"data": data}

    def labelled(self) -> str:
        """A fingerprint of which text has which label, whatever the order of the rows."""
        return fingerprint("\n".join(sorted(map(str, zip(self.raw, self.labels.tolist(), strict=True)))).encode())

    def counts(self, part: str) -> list[int]:
        """How many texts of the part each class has."""
        labels = self.labels[self.rows(part)]
        found = labels.sum(0) if self.labels.ndim == 2 else np.bincount(labels, minlength=len(self.classes))
        return found.tolist()

    def tokens(self, row: int) -> list[str]:
        return [self.words[i] for i in self.ids[self.starts[row] : self.starts[row + 1]]]


@dataclass
class Split:
    """Texts as numbers: text i is ids[starts[i] : starts[i] + lengths[i]]; `rows` says where in the corpus."""

    ids: Tensor  # (tokens,) int32
    starts: Tensor  # (N,)
    lengths: Tensor  # (N,)
    labels: Tensor  # (N,), or (N, K) of 0 and 1
    rows: np.ndarray
    classes: int

    def __len__(self) -> int:
        return len(self.labels)


# ---- where tables come from -------------------------------------------------------------------------------------------


def load(name: str, root: str = "data", tokenizer: str = "jieba", emoticons: str = "keep", **options) -> Corpus:
    """Loads `name` (auto, weibo, sample, or the path of a table), tokenised and split. Errors end the program with one line.

    `options`: cache, workers, text_column, label_column. auto is weibo_senti_100k if it is in `root` or can be downloaded,
    else the sample, with a warning.
    """
    options["cache"] = options.get("cache") or Path(root) / "cache"
    if name == "auto":
        try:
            get_file("weibo_senti_100k.csv", root)
            name = "weibo"
        except SystemExit as why:
            warn(
                f"weibo_senti_100k is not to be had, so this run uses the built-in SAMPLE of made-up reviews.\n"
                f"{why}\nA score on the sample says nothing about real text."
            )
            name = "sample"
    if name == "sample" and not Path(name).is_file():
        rows = [(i, *row) for i, row in enumerate(sample.make(), 1)]
        return tokenise("sample", rows, [], tokenizer, emoticons, options["cache"], workers=1)
    is_weibo = name in ("weibo", "weibo_senti_100k") and not Path(name).is_file()
    path = get_file("weibo_senti_100k.csv", root) if is_weibo else Path(name)
    if not path.is_file():
        fail(f"--data {name}: not weibo, sample or auto, and there is no file of that name")
    return load_table(path, path.stem, tokenizer, emoticons, **options)


def get_file(name: str, root: str) -> Path:
    """-> the file in `root`, downloaded from the first of its sources that answers, if it is not there yet."""
    path = Path(root) / name
    if path.exists():
        return path
    hub = os.getenv("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    urls = [url.replace("https://huggingface.co", hub) for url in SOURCES[name]]
    utils.download(urls, path, check=partial(check_download, name))
    return path


def check_download(name: str, path: Path) -> None:
    """ValueError if this is not the file that should have come. For the reviews no one publishes a hash, and copies differ
    in line ends and byte-order mark, so it is their rows that are counted."""
    if name == "hit_stopwords.txt" and utils.hash_of(path) != STOP_WORDS_SHA256:
        raise ValueError(f"what came has not the SHA-256 {STOP_WORDS_SHA256}")
    if name == "weibo_senti_100k.csv":
        text = path.read_bytes().decode("utf-8-sig", "replace")
        rows = sum(1 for _ in csv.reader(io.StringIO(text, newline=""))) - 1
        if rows != WEIBO_ROWS:
            raise ValueError(f"what came has {rows:,} rows, not {WEIBO_ROWS:,}")


def load_stop_words(which: str, root: str) -> list[str]:
    """`none`, `hit` (the list of the Harbin Institute of Technology that the course uses), or a file with a word a line."""
    if which == "none":
        return []
    path = get_file("hit_stopwords.txt", root) if which == "hit" else Path(which)
    if not path.is_file():
        fail(f"--stop-words {which}: not none or hit, and there is no file of that name")
    return sorted({texts.clean(line) for line in utils.read_text(path).split("\n")} - {""})


# ---- cleaning, segmentation, splitting --------------------------------------------------------------------------------


def load_table(path, name, tokenizer, emoticons, cache, workers=0, text_column=None, label_column=None) -> Corpus:
    """Reads a table, or what the cache has of it. Of several processes, the first fills the cache and the others read it."""
    settings = [CACHE_VERSION, tokenizer, emoticons, text_column, label_column, path.suffix]
    try:
        data = hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        fail(f"{path}: cannot be read ({error.strerror})")
    cached = Path(cache) / f"tokens-{hashlib.sha256(data + json.dumps(settings).encode()).hexdigest()[:16]}.npz"
    corpus = None
    for turn in (0, 1):
        if corpus is None and (rank() == 0) == (turn == 0):
            corpus = read_cache(cached, name)
            if corpus is None:
                rows, notes = read_table(path, text_column, label_column)
                corpus = tokenise(name, rows, notes, tokenizer, emoticons, cache, workers)
                write_cache(cached, corpus)
        if dist.is_initialized():
            dist.barrier()
    return corpus


def read_table(path: Path, text_column: str | None, label_column: str | None) -> tuple[list, list[str]]:
    """-> rows (line, text, label), labels that mean the same in one spelling, and notes of what was skipped or joined."""
    return tables.same_labels(*tables.read(path, text_column, label_column))


def tokenise(name, rows, notes, tokenizer, emoticons, cache, workers=0) -> Corpus:
    """Rows (line, text, label) -> a corpus. Exact repeats are kept once; a text that carries two labels is left out."""
    chosen, notes = choose_rows(rows, notes, emoticons)
    if not chosen:
        fail(f"--data {name}: no usable row")
    lines, raw, cleaned, labels = zip(*chosen, strict=True)
    classes, numbers, more = tables.classes_of(labels, name)
    tokens = segment_all(cleaned, tokenizer, cache, workers)
    number: dict[str, int] = {}
    ids = np.array([number.setdefault(token, len(number)) for row in tokens for token in row], np.int32)
    starts = np.cumsum([0, *map(len, tokens)], dtype=np.int64)
    parts = np.array([PARTS.index(texts.split_of(text)) for text in raw], np.int8)
    names = NUMBERED.get(tuple(classes), classes)
    return Corpus(name, names, list(number), ids, starts, numbers, parts, np.array(lines), list(raw), [*notes, *more])


def segment_all(cleaned: tuple[str, ...], tokenizer: str, cache, workers: int) -> list[list[str]]:
    """The tokens of each cleaned text, by several processes if there are many."""
    work = partial(texts.segment, tokenizer=tokenizer, cache=cache)
    workers = min(workers or cores(), 1 + len(cleaned) // 5000)
    progress = partial(tqdm, desc="segmenting", total=len(cleaned), leave=False, disable=None)
    if tokenizer == "jieba":
        texts.load_jieba(cache)  # forked processes share this dictionary; spawned ones read it from the cache
    if workers == 1:
        return list(progress(map(work, cleaned)))
    with multiprocessing.get_context(START_METHOD).Pool(workers) as pool:
        return list(progress(pool.imap(work, cleaned, chunksize=500)))


def cores() -> int:
    """How many processes can run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_rows(rows: list, notes: list[str], emoticons: str) -> tuple[list, list[str]]:
    """Rows (line, text, label) -> rows (line, text, cleaned text, label) without repeats, contradictions and empty texts."""
    cleaned = [texts.clean(text, emoticons) for _, text, _ in rows]
    labels_of: dict[str, set] = {}
    for text, (_, _, label) in zip(cleaned, rows, strict=True):
        labels_of.setdefault(text, set()).add(label)
    chosen, counts, seen = [], Counter(), set()
    for text, (line, raw, label) in zip(cleaned, rows, strict=True):
        if not text:
            counts["with nothing left after cleaning"] += 1
        elif len(labels_of[text]) > 1:
            counts["whose text carries more than one label"] += 1
        elif text in seen:
            counts["that repeat another"] += 1
        else:
            chosen.append((line, raw, text, label))
            seen.add(text)
    return chosen, [*notes, *(f"left out {count:,} rows {why}" for why, count in counts.items())]


def write_cache(path: Path, corpus: Corpus) -> None:
    text = json.dumps({name: getattr(corpus, name) for name in ("classes", "words", "raw", "notes")})
    arrays = {name: getattr(corpus, name) for name in ("ids", "starts", "labels", "parts", "lines")}
    buffer = io.BytesIO()
    np.savez(buffer, text=np.frombuffer(text.encode(), np.uint8), **arrays)
    try:
        write_atomic(utils.output_folder(path.parent) / path.name, buffer.getvalue())
    except SystemExit as why:  # a folder where nobody may write is no reason to stop
        say(f"the tokens are not cached: {why}", file=sys.stderr)


def read_cache(path: Path, name: str) -> Corpus | None:
    """-> the corpus; None if there is no such file, or a damaged one (which is then made anew)."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            arrays = dict(saved)
        return Corpus(name, **json.loads(arrays.pop("text").tobytes()), **arrays)
    except Exception:  # numpy, zipfile and json raise many kinds for a damaged file
        return None


# ---- to the network ---------------------------------------------------------------------------------------------------


def count_tokens(corpus: Corpus, stop_words: list[str] = ()) -> Counter:
    """How often each word stands in the training texts. Those of the other splits are not looked at."""
    training = np.repeat(corpus.parts == PARTS.index("train"), np.diff(corpus.starts))
    counts = np.bincount(corpus.ids[training], minlength=len(corpus.words))
    dropped = set(stop_words)
    return Counter({w: int(n) for w, n in zip(corpus.words, counts, strict=True) if n and w not in dropped})


def limit_training(corpus: Corpus, limit: int | None, seed: int) -> None:
    """Takes all but `limit` texts out of the training part."""
    rows = corpus.rows("train")
    if limit and limit < len(rows):
        corpus.parts[np.random.default_rng(seed).permutation(rows)[limit:]] = -1


def encode(corpus: Corpus, part: str, vocabulary: list[str], max_length: int, stop_words: list[str] = ()) -> Split:
    """A split's texts in the numbers of `vocabulary`, their first `max_length` tokens; one <unk> where nothing is left."""
    rows = corpus.rows(part)
    if not len(rows):
        fail(f"--data {corpus.name}: its {len(corpus.labels):,} rows are too few, none fell to the {part} part")
    numbers = np.array(texts.numbers_of(vocabulary, corpus.words, stop_words), np.int32)[corpus.ids]
    kept = np.concatenate([[0], np.cumsum(numbers >= 0)])  # how many tokens are left before each place
    starts, ends = kept[corpus.starts[rows]], kept[corpus.starts[rows + 1]]
    numbers = np.append(numbers[numbers >= 0], UNK).astype(np.int32)
    lengths = np.minimum(ends - starts, max_length)
    starts[lengths == 0], lengths[lengths == 0] = len(numbers) - 1, 1
    tensors = map(torch.from_numpy, (numbers, starts, lengths, corpus.labels[rows]))
    return Split(*tensors, rows, len(corpus.classes))


def gather(split: Split, chosen: Tensor, longest: int) -> Tensor:
    """-> (n, longest) int64, the chosen texts side by side, padded to `longest`: the length of the longest of them. Who calls
    knows it; to ask the device for it would make each step wait for the one before."""
    starts, lengths = split.starts[chosen], split.lengths[chosen]
    offsets = torch.arange(longest, device=lengths.device)
    inside = offsets < lengths[:, None]
    return torch.where(inside, split.ids[(starts[:, None] + offsets) * inside].long(), PAD)


class BucketLoader:
    """Batches (ids (n, L), labels (n,), texts of the whole batch) of texts of similar length: little of a batch is padding.

    For training, the texts are shuffled anew from (seed, epoch), the same in all processes; each run of `pool` batches is
    sorted by length and cut into batches, whose order is shuffled again; each process takes its share of a batch, and an
    incomplete batch is left out. Otherwise the texts come in `order`, by length. Without `share`, every process gets all.
    """

    def __init__(self, split: Split, batch_size: int, device: torch.device, train=False, seed=0, pool=50, share=True):
        tensors = (t.to(device) for t in (split.ids, split.starts, split.lengths, split.labels))
        self.split = Split(*tensors, split.rows, split.classes)
        self.lengths, self.device, self.train = split.lengths.cpu(), device, train
        self.batch_size = min(batch_size, len(split)) if train else batch_size
        self.seed, self.epoch, self.pool, self.share, self.texts = seed, 0, pool, share, len(split)
        self.order = self.lengths.argsort(stable=True)
        self.classes = split.classes

    def __len__(self) -> int:
        return self.texts // self.batch_size if self.train else -(-self.texts // self.batch_size)

    def batches(self) -> list[Tensor]:
        if not self.train:
            return list(self.order.split(self.batch_size))
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(self.texts, generator=generator)[: len(self) * self.batch_size]
        pools = order.split(self.pool * self.batch_size)
        batches = [b for p in pools for b in p[self.lengths[p].argsort(stable=True)].split(self.batch_size)]
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        for batch in self.batches():
            mine = batch[rank() :: world()] if self.share else batch
            if len(mine):  # of a last validation batch there may be less than one text a process
                longest, mine = int(self.lengths[mine].max()), mine.to(self.device, non_blocking=True)
                yield gather(self.split, mine, longest), self.split.labels[mine], len(batch)


# ---- python datasets.py -----------------------------------------------------------------------------------------------


def describe(corpus: Corpus) -> None:
    """Prints what was left out, the texts a class and split, and how long they are."""
    print("\n".join(corpus.notes))
    lengths = np.diff(corpus.starts)
    say(f"{corpus.name}: {len(corpus.labels):,} texts, {len(corpus.words):,} different tokens")
    median, most = np.quantile(lengths, [0.5, 0.99])
    say(f"tokens a text: {median:.0f} (median), {most:.0f} (99 %), {lengths.max():,} (longest)")
    columns = [corpus.counts(part) for part in PARTS]
    rows = [[utils.cut(name, 30), *(f"{column[i]:,}" for column in columns)] for i, name in enumerate(corpus.classes)]
    utils.print_table([["class", *PARTS], *rows[:30]])
    if len(rows) > 30:
        say(f"and {len(rows) - 30} more classes")


def add_data_flags(group) -> None:
    """The flags of train.py and datasets.py that say which texts, and what is made of them."""
    group.add_argument("--data", default="auto", help=DATA_HELP)
    group.add_argument("--data-root", default="data", metavar="DIR", help="where real data lie (default: %(default)s)")
    utils.add_mirror_flag(group)
    group.add_argument("--cache", metavar="DIR", help="of tokenised text and of jieba (default: DATA_ROOT/cache)")
    group.add_argument("--text-column", metavar="NAME", help="of your own table (default: review, text, content, ...)")
    group.add_argument("--label-column", metavar="NAME", help="of your own table (default: label, sentiment, ...)")
    group.add_argument("--emoticons", choices=texts.EMOTICONS, default="keep", help="[哈哈]: default %(default)s")


def main(argv=None) -> None:
    parser = utils.Parser(description=__doc__)
    add_data_flags(parser)
    parser.add_argument("--tokenizer", choices=texts.TOKENIZERS, default="jieba", help="default: %(default)s")
    parser.add_argument(
        "--workers", type=Number(int, 0, 256), default=0, help="processes that segment (default: one a core)"
    )
    args = vars(parser.parse_args(argv))
    args.pop("mirror")
    corpus = load(args.pop("data"), args.pop("data_root"), **args)
    describe(corpus)
    for row in corpus.rows("train")[:5]:
        print(f"{corpus.classes[corpus.labels[row]]:<10} {' | '.join(corpus.tokens(row))[:150]}")


if __name__ == "__main__":
    utils.start(main)

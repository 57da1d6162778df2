"""Measures a trained translator on the test split, or translates what you give it.

    python test.py "I love you."                      # the newest run, or else the shipped weights, translate
    python test.py letter.txt                         # each line of a file
    tail -f log | python test.py -                    # lines from a pipe, each translated as it comes
    python test.py --run runs/general-cmn-eng         # BLEU, chrF, perplexity, test.json, translations.tsv, attention.png
    python test.py "I love you." --attention map.png  # which words it looked at

Only this script reads the test split, and it changes nothing by it: train.py picks the best epoch on validation data.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch
from torch import nn

import datasets
import heatmap
import models
import options
import reading
import search
import utils
from datasets import Codec, TokenBatches
from losses import cross_entropy
from metrics import bleu, chrf, exact
from utils import Number, fail, say

WEIGHTS = Path(__file__).parent / "weights" / "general.safetensors"
NEEDED = {"arch", "sizes", "data", "reverse", "max_length", "source", "target"}
LENGTHS = (5, 10, 15, 20, 10**9)  # source tokens: up to 5, 6 to 10, ...


def parse(argv=None) -> argparse.Namespace:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("texts", nargs="*", help="sentences, files of sentences, or -, to translate instead of testing")
    parser.add_argument("--run", metavar="DIR", help="a run folder of train.py (default: the newest in runs/)")
    parser.add_argument("--weights", metavar="FILE", help="a .safetensors file, or a run's best.pt")
    parser.add_argument("--data", nargs="+", help="what to test on (default: the data the network was trained on)")
    parser.add_argument("--data-root", default="data", metavar="DIR", help="where pairs lie (default: %(default)s)")
    parser.add_argument("--out", metavar="DIR", help="where results go (default: the run folder, or runs/test-ARCH)")
    parser.add_argument("--beam", type=Number(int, 1, 100), default=5, help="1 is greedy (default: %(default)s)")
    parser.add_argument(
        "--length-penalty",
        type=Number(float, 0, 10),
        default=search.PENALTY,
        help="above 0 favours long ones (default: %(default)s)",
    )
    parser.add_argument(
        "--copy-unknown", action="store_true", help="put words that the vocabulary lacks where attention looked at them"
    )
    parser.add_argument("--attention", metavar="FILE", help="draw where it looked while translating what you gave it")
    parser.add_argument("--font", metavar="FILE", help="a font file for the pictures (default: an installed one)")
    parser.add_argument("--export", metavar="FILE", help="save the tested weights, in 16 bits, and their score")
    utils.add_device_flag(parser)
    args = parser.parse_args(argv)
    if args.font and not Path(args.font).is_file():
        fail(f"--font {args.font}: no such file")
    if args.data and len(args.data) > 2:
        fail("--data: a name, a file of pairs, or two files")
    return args


def load_model(args: argparse.Namespace, device: torch.device) -> tuple[nn.Module, Codec, dict, Path]:
    """-> the network in eval mode, its codec, what its file says of it, and the file."""
    run = args.run or (None if args.weights else utils.newest_run())
    path = Path(args.weights) if args.weights else Path(run) / "best.pt" if run else WEIGHTS
    state, meta = utils.load_weights(path)
    if NEEDED - meta.keys():
        fail(f"{path}: holds weights, but not of a run of this chapter ({', '.join(sorted(NEEDED))} are needed)")
    codec = Codec.from_metadata(meta)
    words = {"source": len(codec.source), "target": len(codec.target)}
    model = models.build(meta["arch"], words["source"], words["target"], **meta["sizes"])
    for side, count in words.items():
        there = state.get(f"{side}_embedding.weight")
        if there is not None and len(there) != count:
            fail(f"{path}: another vocabulary: {count:,} {side} words are listed, and weights for {len(there):,}")
    utils.load_state(model, state, path, meta["arch"])
    if args.export:  # what is measured is what is saved: weights rounded to 16 bits
        model.half().float()
    utils.say_weights(path, meta)
    return model.to(device).eval(), codec, meta, path


# ---- the test split ---------------------------------------------------------------------------------------------------


@torch.inference_mode()
def perplexity(model: nn.Module, codec: Codec, pairs: list, device: torch.device) -> float:
    """exp of the mean -log p of a token of the right translation, its end included."""
    total, count = 0.0, 0
    for source, target, tokens in TokenBatches(pairs, codec, 4000, device):
        total += cross_entropy(model(source, target[:, :-1]), target[:, 1:]).item()
        count += tokens
    return math.exp(min(total / count, 80.0))


def measure(answers: list[str], pairs: list[tuple[str, str]], codec: Codec) -> dict:
    """Scores of the answers to the different sources of `pairs`, in their order; `rows` has them by length."""
    references, language = datasets.by_source(pairs), codec.target.rules.language
    answer_of = dict(zip(references, answers, strict=True))
    every = list(references.values())
    single, signature = bleu([answer_of[source] for source, _ in pairs], [[target] for _, target in pairs], language)
    several, _ = bleu(answers, every, language)
    chrf_score, chrf_signature = chrf(answers, every)
    result = {"bleu": single, "bleu_all_references": several, "chrf": chrf_score, "exact": exact(answers, every)}
    result |= {"unknown": unknown_share(codec, list(references))}
    result |= {"signature": signature, "chrf_signature": chrf_signature, "sentences": len(answers), "pairs": len(pairs)}
    lengths, rows, low = {source: len(codec.encode_source(source)) - 1 for source in references}, [], 0
    for high in LENGTHS:
        chosen = [source for source in references if low < lengths[source] <= high]
        if chosen:
            ours, theirs = [answer_of[source] for source in chosen], [references[source] for source in chosen]
            row = {"from": low + 1, "to": max(lengths[source] for source in chosen), "sentences": len(chosen)}
            rows.append(row | {"bleu_all_references": bleu(ours, theirs, language)[0], "exact": exact(ours, theirs)})
        low = high
    return result | {"rows": rows}


def unknown_share(codec: Codec, sources: list[str]) -> float:
    """The share of the source's tokens that the vocabulary lacks."""
    lacking = sum(len(codec.source.unknown(source)) for source in sources)
    return lacking / max(1, sum(len(codec.source.cut(source)) for source in sources))


def seen_in_training(answers: list[str], pairs: list, training: list, codec: Codec) -> dict:
    """BLEU of the pairs whose target side is the target of a training pair too, and of the others."""
    answer_of, seen = dict(zip(datasets.by_source(pairs), answers, strict=True)), {datasets.key(t) for _, t in training}
    parts = {"seen": [], "unseen": []}
    for source, target in pairs:
        parts["seen" if datasets.key(target) in seen else "unseen"].append((answer_of[source], [target]))
    language, result = codec.target.rules.language, {}
    for name, rows in parts.items():
        score = bleu(*map(list, zip(*rows, strict=True)), language)[0] if rows else None
        result[f"target_{name}_in_training"] = {"pairs": len(rows), "bleu": score}
    return result


def print_table(result: dict) -> None:
    print(f"{'source tokens':<16}{'sentences':>10}{'BLEU':>8}{'exact':>8}")
    for row in result["rows"]:
        span = f"{row['from']} to {row['to']}"
        print(f"{span:<16}{row['sentences']:>10,}{row['bleu_all_references']:>8.2f}{row['exact']:>8.3f}")


def print_examples(answers: dict[str, list[str]], references: dict[str, list[str]], codec: Codec) -> None:
    """The first two sentences of each length."""
    shown = dict.fromkeys(LENGTHS, 0)
    for source, tokens in answers.items():
        length = next(high for high in LENGTHS if len(codec.encode_source(source)) - 1 <= high)
        if shown[length] < 2:
            shown[length] += 1
            say(f"  {source}\n    is      {' | '.join(references[source])}\n    answer  {codec.target.join(tokens)}")


def draw_lengths(result: dict, path: Path) -> None:
    figure = utils.new_figure(5, 3.2)
    axis = figure.subplots()
    names = [f"{row['from']} to {row['to']}\n({row['sentences']})" for row in result["rows"]]
    axis.bar(names, [row["bleu_all_references"] for row in result["rows"]])
    axis.set(xlabel="source tokens (sentences)", ylabel="BLEU, all references", title=f"BLEU {result['bleu']:.2f}")
    utils.save_figure(figure, path)


def test(
    args: argparse.Namespace, model: nn.Module, codec: Codec, meta: dict, path: Path, device: torch.device
) -> None:
    data, rules = load_data(args, codec, meta, path), codec.target.rules
    pairs = held_out(data, path)
    references = datasets.by_source(pairs)
    warn_of_long(codec, list(references))
    start = time.perf_counter()
    answers = search.translate(
        model, codec, list(references), device, args.beam, args.length_penalty, args.copy_unknown
    )
    seconds, texts = time.perf_counter() - start, search.as_text(codec, answers)
    about = {"arch": meta["arch"], "trained_on": meta["data"], "tested_on": data.name, "sha256": data.sha256}
    about |= {"weights": str(path), "reverse": meta["reverse"], "split": meta.get("split", "source")}
    about |= {"beam": args.beam, "length_penalty": args.length_penalty, "target_language": rules.language}
    about |= {"torch": torch.__version__, "perplexity": perplexity(model, codec, pairs, device)}
    result = about | measure(texts, pairs, codec)
    if data.name == meta["data"]:
        result |= seen_in_training(texts, pairs, data.splits["train"], codec)

    out = output_folder(args, meta, path)
    print_examples(answers, references, codec)
    print_table(result)
    lines = [f"{s}\t{' | '.join(references[s])}\t{codec.target.join(tokens)}" for s, tokens in answers.items()]
    utils.write_atomic(out / "translations.tsv", "source\treferences\tanswer\n" + "\n".join(lines) + "\n")
    draw_lengths(result, out / "by_length.png")
    middling = [source for source in answers if 5 <= len(codec.source.cut(source)) <= 12]
    drawn = draw_attention(args, model, codec, {s: answers[s] for s in middling[:3]}, out / "attention.png", device)
    utils.write_atomic(out / "test.json", json.dumps(result, indent=1, ensure_ascii=False))
    say(
        f"{meta['arch']}, trained on {meta['data']}: test BLEU {result['bleu']:.2f} (one reference; all references: "
        f"{result['bleu_all_references']:.2f}), chrF {result['chrf']:.2f}, perplexity {result['perplexity']:.2f}, exact "
        f"{result['exact']:.4f} on {data.name} ({len(answers):,} sentences, {seconds:.1f} s on {device}); "
        f"{result['unknown']:.1%} of their source tokens are unknown"
    )
    say(f"signatures {result['signature']} and {result['chrf_signature']}")
    say(f"wrote {out}: {', '.join(['test.json', 'translations.tsv', 'by_length.png', *(p.name for p in drawn)])}")
    if args.export:
        export(args, model, meta, path, result)


def load_data(args: argparse.Namespace, codec: Codec, meta: dict, path: Path) -> datasets.Data:
    """The pairs of --data, or those of the training, normalised and split as there."""
    name, rules = args.data or source_of(meta, path), codec.target.rules
    data = datasets.load(
        name, args.data_root, rules.chinese, rules.script, meta["reverse"], meta.get("split", "source")
    )
    for side, ours, theirs in zip(("source", "target"), (codec.source.rules, rules), data.rules, strict=True):
        if ours.language != theirs.language:
            words = f"its {side} is {theirs.language or 'written in letters'!r}"
            say(f"{data.name}: {words}, {path} was trained on {ours.language or 'one in letters'!r}", file=sys.stderr)
    return data


def held_out(data: datasets.Data, path: Path) -> list[tuple[str, str]]:
    """-> the test pairs, without those that the run trained on (there are none, unless the rules of the split changed)."""
    pairs = {datasets.mark_of(pair): pair for pair in data.splits["test"]}
    if (path.parent / "split.json").exists():
        split, names = utils.read_json(path.parent / "split.json"), {mark: pair[0] for mark, pair in pairs.items()}
        chosen = utils.held_out(split, names, set(pairs), names_stay=False, same_data=False)
        pairs = {mark: pair for mark, pair in pairs.items() if mark in chosen}
    return list(pairs.values()) or fail("no pair is left that did not train")


def source_of(meta: dict, path: Path) -> str | list[str]:
    """The --data that the run was trained with; for shared weights, the name of their data."""
    if path.suffix == ".pt" and (path.parent / "args.json").exists():
        return utils.read_arguments(path.parent).get("data", meta["data"])
    return meta["data"]


def output_folder(args: argparse.Namespace, meta: dict, path: Path) -> Path:
    return utils.output_folder(
        args.out or (path.parent if path.suffix == ".pt" else Path("runs") / f"test-{meta['arch']}")
    )


def export(args: argparse.Namespace, model: nn.Module, meta: dict, path: Path, result: dict) -> None:
    """Saves the weights to share, with how they were made and what they score; the vocabularies are in `meta`."""
    command = utils.command_of(utils.read_arguments(path.parent), options.parse("", []))
    names = (
        "bleu",
        "bleu_all_references",
        "signature",
        "chrf",
        "perplexity",
        "beam",
        "length_penalty",
        "tested_on",
        "torch",
    )
    score, target = {name: result[name] for name in names}, utils.free_name(args.export)
    utils.save_weights(target, model.half(), **meta, command=command, score=score)
    say(f"wrote {target}: {target.stat().st_size / 1e6:.1f} MB")


# ---- your sentences ---------------------------------------------------------------------------------------------------


def draw_attention(args, model, codec: Codec, answers: dict[str, list[str]], path: Path, device) -> list[Path]:
    """-> the files written: none if the network has no attention."""
    rows = []
    for source, tokens in answers.items():
        row = codec.target.encode(tokens)
        weights = search.attention(model, codec, source, row, device)
        if weights is not None:
            words = codec.source.cut(source, as_written=True)[: codec.max_length]
            rows.append(([*words, "(end)"], [*tokens, "(end)"], weights))
    return heatmap.draw(rows, path, args.font) if rows else []


def warn_of_long(codec: Codec, texts: list[str], start: int = 1) -> None:
    for number, text in enumerate(texts, start):
        if codec.too_long(text):
            count = len(codec.source.cut(text))
            say(f"sentence {number}: {count:,} tokens; only the first {codec.max_length} are read", file=sys.stderr)


def name_unknown(codec: Codec, texts: list[str], start: int) -> None:
    """Says which words a sentence has that the vocabulary lacks: they are guessed, or fall away."""
    for number, text in enumerate(texts, start):
        if words := [word for _, word in codec.source.unknown(text)]:
            say(f"sentence {number}: unknown words: {', '.join(words[:20])}", file=sys.stderr)


def answer(args: argparse.Namespace, model: nn.Module, codec: Codec, device: torch.device) -> None:
    """Prints a line for each sentence: its translation. What cannot be translated whole is said on stderr."""
    number, drawn_of = 1, {}
    for some in reading.texts_of(args.texts):
        texts = [codec.source.rules.normalise(text) for text in some]
        warn_of_long(codec, texts, number)
        name_unknown(codec, texts, number)
        number += len(texts)
        answers = search.translate(model, codec, texts, device, args.beam, args.length_penalty, args.copy_unknown)
        for text in texts:
            print(codec.target.join(answers[text]), flush=True)
        drawn_of |= answers
    if args.attention:
        some = {text: drawn_of[text] for text in list(drawn_of)[:4] if text}
        drawn = draw_attention(args, model, codec, some, utils.free_name(args.attention), device)
        print(f"wrote {', '.join(map(str, drawn))}" if drawn else "this network has no attention", file=sys.stderr)


def main(argv=None) -> None:
    args = parse(argv)
    device = utils.pick_device(args.device)
    model, codec, meta, path = load_model(args, device)
    if args.copy_unknown and not model.has_attention:
        fail(f"--copy-unknown: a {meta['arch']} has no attention that would say where a word belongs")
    if args.export and not (path.parent / "args.json").exists():
        fail(f"--export: {path} is no run; only a run knows how its weights were made")
    if args.texts:
        answer(args, model, codec, device)
    else:
        test(args, model, codec, meta, path, device)


if __name__ == "__main__":
    utils.start(main)

"""Makes a network smaller or faster, in five ways, and measures each against the original in one run.

    python compress.py                        # all of them, of the shipped weights; writes runs/compress and prints the table
    python compress.py --only int8_ort taught
    python compress.py --weights ../ch06_cifar10/weights/mobilenet.safetensors --data PATH   # pictures that ch06 exported

sparse      the smallest 80 % of all weights set to 0 and the rest trained a little further (Han et al. 2015, "Learning both
            Weights and Connections"). The file only shrinks when zipped, and dense kernels gain no time
narrow      half of the channels inside each residual block cut out, the weakest ones (Li et al. 2016, "Pruning Filters for
            Efficient ConvNets"), and trained a little further: smaller and faster everywhere
int8_ort    8-bit weights and activations by ONNX Runtime, ranges measured on training pictures
int8_ao     the same by torchao's graph quantisation, run by torch.compile
taught      a small network that learns from the large one's answers (Hinton et al. 2015, "Distilling the Knowledge in a Neural
            Network"); alone: the same small network from the labels only, to see what the teacher brings

Accuracy is measured on the validation split; `python test.py --weights FILE` measures any of the files on the test split.
"""

import argparse
import copy
import io
import json
import statistics
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

import datasets
import export
import models
import utils
from datasets import Batches, Split
from service import engine
from utils import fail, say

ROUNDS = 15  # of the latency, all variants in turn
CALIBRATION = 256  # pictures that show an int8 model its ranges


def fit(model: models.Deployable, split: Split, epochs: int, lr: float, teacher: nn.Module | None = None) -> None:
    """Trains `model` further, or from the start, on labels, or on a teacher's answers and a little on labels."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr, weight_decay=0.02)
    loader = Batches(split, 64, torch.device("cpu"), shuffle=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, max(2, epochs * len(loader)), cycle_momentum=False)
    model.train()
    for epoch in range(epochs):
        loader.epoch = epoch
        for pixels, labels in loader:
            logits = model(pixels)
            loss = F.cross_entropy(logits, labels)
            if teacher:
                loss = 0.1 * loss + 0.9 * distillation_loss(logits, answers_of(teacher, pixels))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    model.eval()


@torch.no_grad()
def answers_of(teacher: nn.Module, pixels: Tensor) -> Tensor:
    return teacher(pixels)


def distillation_loss(logits: Tensor, taught: Tensor, temperature: float = 4.0) -> Tensor:
    """How far the student's softened answers are from the teacher's; T^2 keeps the gradients' size (Hinton et al. 2015)."""
    student, teacher = (F.log_softmax(x / temperature, 1) for x in (logits, taught))
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


# ---- pruning ----------------------------------------------------------------------------------------------------------


def sparse(model: models.Deployable, split: Split, epochs: int, amount: float = 0.8) -> models.Deployable:
    """Sets the smallest `amount` of all weights of convolutions and linear layers to 0, where they stay; the rest trains on."""
    model = copy.deepcopy(model)
    layers = [(m, "weight") for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=amount)
    fit(model, split, epochs, 1e-3)
    for layer, name in layers:
        prune.remove(layer, name)
    return model


@torch.no_grad()
def cut(network: models.ResNet10, share: float = 0.5) -> models.ResNet10:
    """-> the network with only the strongest `share` of the channels inside each block: those with the largest filters, times
    the factor that batch normalisation gives them."""
    blocks = [m for m in network.features if isinstance(m, models.Block)]
    kept = []
    for block in blocks:
        strength = block.conv1.weight.abs().sum((1, 2, 3)) * block.bn1.weight.abs() / block.bn1.running_var.sqrt()
        kept.append(strength.topk(max(1, round(share * len(strength)))).indices.sort().values)
    small = models.ResNet10(network.head.out_features, inner=tuple(len(k) for k in kept))
    state = network.state_dict()
    for i, keep in enumerate(kept, start=1):
        for name in ("conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"):
            state[f"features.{i}.{name}"] = state[f"features.{i}.{name}"][keep]
        state[f"features.{i}.conv2.weight"] = state[f"features.{i}.conv2.weight"][:, keep]
    small.load_state_dict(state)
    return small.eval()


def narrow(model: models.Deployable, split: Split, epochs: int) -> models.Deployable:
    small = copy.deepcopy(model)
    small.network = cut(model.network)
    fit(small, split, epochs, 1e-3)
    return small


# ---- int8 -------------------------------------------------------------------------------------------------------------


def int8_ort(source: Path, pictures: Tensor, path: Path) -> Path:
    """An .onnx file -> the same in 8 bits. Each channel of a weight has a scale of its own; the activations' ranges are those
    that `pictures` (N, 3, S, S) take on. Shapes are inferred and operations fused first, or much would stay float."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter(pictures.split(32))

        def get_next(self):
            batch = next(self.batches, None)
            return None if batch is None else {"pixels": batch.numpy()}

    with tempfile.TemporaryDirectory() as folder:
        prepared, quantised = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(str(source), str(prepared))
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}  # what VNNI multiplies
        quantize_static(str(prepared), str(quantised), Reader(), per_channel=True, **types)
        graph = onnx.load(str(quantised))
        del graph.metadata_props[:]
        onnx.helper.set_model_props(graph, {"meta": json.dumps(engine.open_onnx(source.read_bytes()).meta)})
        utils.write_atomic(path, graph.SerializeToString())
    return path


def int8_ao(model: models.Deployable, pictures: Tensor) -> torch.export.ExportedProgram:
    """-> the model's graph in 8 bits by torchao: observers are put in, see `pictures`, and become scales."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = prepare_pt2e(export.capture(model, pictures[:2]).module(), quantizer)
        with torch.no_grad():
            for batch in pictures.split(32):
                prepared(batch)
        converted = convert_pt2e(prepared)
    used = {node.target for node in converted.graph.nodes if node.op == "get_attr"}
    for name, _ in [*converted.named_parameters(), *converted.named_buffers()]:
        if name not in used:  # the float weights stay behind, and would be saved beside the 8-bit ones
            module, _, last = name.rpartition(".")
            delattr(converted.get_submodule(module), last)
    return export.capture(converted, pictures[:2])


def compiled(program: torch.export.ExportedProgram):
    """A captured graph as machine code; frozen, since only with constant weights do int8 operations get fused."""
    torch._inductor.config.freezing = True
    return torch.compile(program.module())


# ---- the table --------------------------------------------------------------------------------------------------------


def zipped_size(path: Path) -> int:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path)
    return len(buffer.getvalue())


def accuracy(run, split: Split) -> float:
    logits = np.concatenate([run(batch.numpy()) for batch in split.images.split(32)])
    return float((logits.argmax(1) == split.labels.numpy()).mean())


def measure(variants: dict[str, tuple[Path, engine.Engine]], split: Split) -> dict[str, dict]:
    """-> size, accuracy and median latency of each; the rounds go over all variants in turn, since machines drift."""
    rows = {}
    for name, (path, opened) in variants.items():
        rows[name] = {"file": path.name, "mb": path.stat().st_size / 1e6, "zipped_mb": zipped_size(path) / 1e6}
        rows[name]["accuracy"] = accuracy(opened.run, split)
    times = {(name, size): [] for name in variants for size in (1, 32)}
    for _ in range(ROUNDS):
        for name, size in times:
            pixels, run = split.images[:size].numpy(), variants[name][1].run
            run(pixels)  # untimed: the runtime before this one leaves its threads spinning for a while
            start = time.perf_counter()
            run(pixels)
            times[name, size].append(1000 * (time.perf_counter() - start))
    for (name, size), values in times.items():
        rows[name][f"ms_{size}"] = statistics.median(values[3:])
    return rows


def print_table(rows: dict[str, dict]) -> None:
    base = rows["original"]
    print(f"{'':<10}{'MB':>7}{'smaller':>9}{'zipped':>8}{'ms, 1':>8}{'ms, 32':>8}{'accuracy':>10}{'points':>8}")
    for name, row in rows.items():
        size = f"{row['mb']:>7.2f}{base['mb'] / row['mb']:>8.2f}x{row['zipped_mb']:>8.2f}"
        speed = f"{row['ms_1']:>8.2f}{row['ms_32']:>8.2f}"
        print(f"{name:<10}{size}{speed}{row['accuracy']:>10.4f}{100 * (row['accuracy'] - base['accuracy']):>+8.2f}")


def make(args, model: models.Deployable, meta: dict, train: Split, real: Tensor) -> dict:
    """-> name: (file, engine) of the original and the variants that were asked for, each written and opened again."""
    out, kept = Path(args.out), models.NEEDED | {"inner"}  # its score is the original's alone
    meta = {name: value for name, value in meta.items() if name in kept}
    some = train.images[:CALIBRATION]

    def as_onnx(variant: models.Deployable, name: str, **about) -> Path:
        network = utils.unwrap(variant).network
        one = {"only": [name] if name in WAYS else None}
        command = {"command": utils.command_of(vars(args) | one, parse([]), "python compress.py")}
        said = {key: value for key, value in (meta | about).items() if value is not None}
        utils.save_weights(out / f"{name}.safetensors", network, **said | command)
        return export.export(variant, said, "onnx", out, real, name=name)

    def small(teacher: nn.Module | None) -> models.Deployable:
        utils.seed_everything(0)
        student = models.Deployable(models.build("tiny", len(meta["classes"])), meta["mean"], meta["std"])
        fit(student, train, args.epochs, 5e-3, teacher)
        return student

    out.mkdir(parents=True, exist_ok=True)
    files = {"original": as_onnx(model, "original")}
    if "sparse" in args.only:
        files["sparse"] = as_onnx(sparse(model, train, max(1, args.epochs // 4)), "sparse")
    if "narrow" in args.only and meta["arch"] == "resnet10":
        thin = narrow(model, train, max(1, args.epochs // 4))
        inner = [block.conv1.out_channels for block in list(thin.network.features)[1:]]
        files["narrow"] = as_onnx(thin, "narrow", inner=inner)
    elif "narrow" in args.only:
        say(f"narrow: left out, since a {meta['arch']} has no residual blocks to narrow")
    if "int8_ort" in args.only:
        files["int8_ort"] = int8_ort(files["original"], some, out / "int8_ort.onnx")
    for name, teacher in (("taught", model), ("alone", None)):
        if name in args.only:
            files[name] = as_onnx(small(teacher), name, arch="tiny", inner=None)
    opened = {name: (path, engine.open_model(path, args.threads)) for name, path in files.items()}
    if "int8_ao" in args.only:
        program, path = int8_ao(model, some), out / f"int8_ao{engine.ENDINGS['export']}"
        torch.export.save(program, str(path), extra_files={"meta.json": json.dumps(meta)})
        opened["int8_ao"] = (path, engine.Engine(engine.on_tensors(compiled(program)), meta))
    return opened


WAYS = ("sparse", "narrow", "int8_ort", "int8_ao", "taught", "alone")


def parse(argv=None) -> argparse.Namespace:
    parser = utils.Parser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=WAYS, help="default: all")
    parser.add_argument("--weights", metavar="FILE", help=f"default: weights/{export.WEIGHTS.name}")
    parser.add_argument("--run", metavar="DIR", help="a run folder of train.py, instead of --weights")
    parser.add_argument("--data", default="sample", help=datasets.DATA_HELP)
    parser.add_argument("--limit", type=int, metavar="N", help="use only N pictures of each split")
    parser.add_argument("--epochs", type=int, default=12, help="of a student; others a quarter (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=engine.cores(), help="default: %(default)s, all cores")
    parser.add_argument("--out", metavar="DIR", default="runs/compress", help="default: %(default)s")
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse(argv)
    model, meta = models.load(Path(args.run) / "best.pt" if args.run else args.weights or export.WEIGHTS)
    data = datasets.load(args.data, meta["image_size"], limit=args.limit)
    if data.classes != meta["classes"]:
        fail(f"the network knows {', '.join(meta['classes'])}; {data.name} has {', '.join(data.classes)}; see --data")
    torch.set_num_threads(args.threads)
    utils.keep_freed_memory()
    train, val = data.splits["train"], data.splits["val"]
    rows = measure(make(args, model, meta, train, val.images[: max(export.BATCHES)]), val)
    print_table(rows)
    about = {"arch": meta["arch"], "data": data.name, "threads": args.threads, "torch": torch.__version__}
    utils.write_atomic(Path(args.out) / "compress.json", json.dumps(about | {"variants": rows}, indent=1))


if __name__ == "__main__":
    main()

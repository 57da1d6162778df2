"""What is measured, in order of worth. `python measure.py --list` prints it."""

import re

from steps import Step

COMMON = ("numpy", "safetensors", "tqdm", "matplotlib", "tensorboardX")
NEEDS = {  # what a chapter's training and test import; names of modules
    "ch04": (*COMMON, "torchvision", "PIL", "torchmetrics", "sklearn", "scipy"),
    "ch06": (*COMMON, "torchvision", "PIL", "torchmetrics"),
    "ch07": (
        "numpy",
        "safetensors",
        "matplotlib",
        "torchvision",
        "PIL",
        "mmdet",
        "mmengine",
        "mmcv",
        "yaml",
        "pycocotools",
    ),
    "ch08": (*COMMON, "torchvision", "PIL", "pycocotools", "yaml"),
    "ch09": (*COMMON, "torchvision", "PIL", "torchmetrics"),
    "ch11": (*COMMON, "torchmetrics", "sklearn", "regex"),
    "ch12": (*COMMON, "sacrebleu", "sentencepiece", "regex", "opencc"),
    "ch13": (*COMMON, "torchvision", "PIL", "onnx", "onnxscript", "onnxruntime"),
}
SERVICE = ("fastapi", "uvicorn", "prometheus_client")
ON = ("--device", "{device}")
ROOT = ("--data-root", "{root}")
FIGURES = ("{gpu}/run_figures.py", "{run}")


def step(name: str, minutes: float, *commands: tuple, tiny: tuple = (), needs: tuple = (), **more) -> Step:
    return Step(name, minutes, commands, tiny, (*NEEDS[name[:4]], *needs), **more)


# ---- 1. does everything run there? ------------------------------------------------------------------------------------


def tests() -> list[Step]:
    """The tests that train on --device; the shortest training with bf16 and torch.compile; and how exact a resumed run is."""
    which = {"ch06": 1, "ch09": 1.5, "ch11": 1, "ch12": 1, "ch13": 1, "ch04": 1, "ch08": 1, "ch07": 1}
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", *ON, "--junit-xml", "{run}/tests.xml")
    words += ("-k", "learns or oranges or colour_of or quick_run or device")
    found = []
    for name, minutes in which.items():
        needs = ("pytest", *(SERVICE if name == "ch13" else ()))
        found.append(step(f"{name} tests", minutes, words, tiny=("--collect-only",), needs=needs, goal="no failures"))
    for name in ("ch06", "ch09", "ch11", "ch12", "ch13"):
        quick = ("train.py", "--quick", *ON, "--precision", "bf16", "--compile", "--run", "{run}")
        tokenizer = ("--tokenizer", "char") if name == "ch11" else ()
        found.append(step(f"{name} quick bf16 compiled", 1, (*quick, *tokenizer), FIGURES))
    few = {
        "ch06": ("--arch", "resnet", "--limit", "2000", "--epochs", "3"),
        "ch09": ("--limit", "64", "--epochs", "2"),
        "ch11": ("--arch", "textcnn", "--tokenizer", "char", "--epochs", "3"),
        "ch12": ("--limit", "1000", "--epochs", "3"),
    }
    smaller = {"ch06": ("--arch", "lenet5"), "ch09": ("--width", "4")}
    for name, words in few.items():
        tiny = (*smaller.get(name, ()), "--limit", "64", "--epochs", "2")
        found.append(
            step(f"{name} resume", 0.5, ("{gpu}/resume.py", "{run}", "--data", "sample", *ON, *words), tiny=tiny)
        )
    return found


# ---- 2. how fast is a step? -------------------------------------------------------------------------------------------

TINY_BENCH = {"ch06": ("--batch-size", "2"), "ch09": ("--image-size", "32", "--batch-size", "1", "--width", "4")}
TINY_BENCH["ch09"] += ("--arch", "resnet3", "--patch", "16")
TINY_BENCH |= {"ch11": ("--dim", "8"), "ch12": ("--limit", "300", "--width", "16")}


def bench(name: str, minutes: float, *words: str, **more) -> Step:
    """`name`: ch06 bench resnet18 compiled."""
    command, tiny = ("train.py", "--bench", *ON, *words), TINY_BENCH[name[:4]]
    tiny += ("--optimizer", "sgd") if "fastnet" in words else ()  # Muon's matrix products take a CPU a while
    return step(name, minutes, command, tiny=tiny, **more)


def benches() -> list[Step]:
    found, auto = [], ("--precision", "auto")
    for arch in ("resnet18", "fastnet", "vgg", "mobilenet", "resnet50"):
        goal = "utilisation >= 0.35" if arch == "resnet18" else ""
        found.append(bench(f"ch06 bench {arch} compiled", 1, "--arch", arch, *auto, "--compile", goal=goal))
        found.append(bench(f"ch06 bench {arch}", 0.5, "--arch", arch, *auto, goal=goal))
    for batch in ("1", "8"):
        size = ("--image-size", "256", "--batch-size", batch)
        found.append(bench(f"ch09 bench 256 batch {batch} compiled", 2, *size, *auto, "--compile"))
        found.append(bench(f"ch09 bench 256 batch {batch}", 1, *size, *auto))
    for arch in ("textcnn", "bilstm", "transformer"):
        words = ("--arch", arch, "--tokenizer", "char", "--data", "{data}", *ROOT, *auto)
        found.append(bench(f"ch11 bench {arch}", 1, *words, data="weibo"))
    goal = "tokens_per_s >= 20 times that of two CPU cores"
    for arch in ("transformer", "general"):
        words = ("--arch", arch, "--data", "{data}", *ROOT, *auto)
        found.append(bench(f"ch12 bench {arch}", 1, *words, data="cmn-eng", goal=goal))
    found.append(profiled("ch06 where resnet18", "--arch", "resnet18", *auto))
    words = ("--arch", "transformer", "--data", "{data}", *ROOT, *auto)
    return [*found, profiled("ch12 where transformer", *words, data="cmn-eng")]


def profiled(name: str, *words: str, **more) -> Step:
    return step(name, 1, ("{gpu}/where.py", *ON, *words), tiny=TINY_BENCH[name[:4]], **more)


def deployed() -> list[Step]:
    formats = ("bench.py", "--formats", "eager", "compiled", "export", "onnx", "--out", "{run}", *ON)
    services = ("bench.py", "--services", "asgi")
    return [
        step("ch13 bench formats", 3, formats, tiny=("--rounds", "2", "--formats", "eager", "export", "onnx")),
        step("ch13 bench service", 1, services, tiny=("--requests", "40"), needs=SERVICE),
    ]


# ---- 3. and 4. how good, how soon? ------------------------------------------------------------------------------------


def speed_runs() -> list[Step]:
    words, goal = (
        ("{gpu}/speed.py", "--data", "{data}", *ROOT, *ON),
        "accuracy_mean >= 0.94 in seconds_mean < 4, then < 2",
    )
    tiny = ("--runs", "1", "--limit", "8", "--epochs", "1")
    return [
        step("ch06 speed compiled", 3, (*words, "--runs", "10", "--compile"), tiny=tiny, data="cifar10", goal=goal),
        step("ch06 speed", 2, (*words, "--runs", "10"), tiny=tiny, data="cifar10", goal=goal),
    ]


def trained(name: str, seed: int, minutes: float, *words: str, tiny: tuple = (), **more) -> Step:
    """A whole training, its test, and its figures."""
    train = (
        "train.py",
        *words,
        "--data",
        "{data}",
        *ROOT,
        "--seed",
        str(seed),
        "--precision",
        "auto",
        *ON,
        "--run",
        "{run}",
    )
    tiny = (*tiny, "--limit", "64", "--epochs", "1")
    test = ("test.py", "--run", "{run}", *ROOT, *ON)
    return step(f"{name} seed {seed}", minutes, train, test, FIGURES, tiny=tiny, group=name, **more)


def tables(seed: int) -> list[Step]:
    compiled, small = ("--compile",), {"tiny": ("--batch-size", "16")}
    cifar = {
        "resnet18": (6, 0.955),
        "vgg": (2, 0.935),
        "resnet": (2, 0.93),
        "mobilenet": (2, 0.89),
        "inception": (3, 0.9),
    }
    found = [
        trained(
            f"ch06 {arch}", seed, minutes, "--arch", arch, *compiled, data="cifar10", goal=f"score >= {goal}", **small
        )
        for arch, (minutes, goal) in cifar.items()
    ]
    for arch, minutes in (("transformer", 3), ("concat", 2)):
        found.append(trained(f"ch12 {arch}", seed, minutes, "--arch", arch, data="cmn-eng", tiny=("--width", "16")))
    resnet50 = ("--arch", "resnet50", *compiled)
    return [*found, trained("ch06 resnet50", seed, 15, *resnet50, data="cifar10", goal="score >= 0.955", **small)]


def cyclegans(seed: int) -> list[Step]:
    size, tiny = ("--image-size", "32"), ("--limit", "4", "--epochs", "1", "--width", "4", "--patch", "16")
    seeded = ("--seed", str(seed), "--precision", "auto", *ON, "--run", "{run}")
    test = ("test.py", "--run", "{run}", *ON)
    horses = ("train.py", "--data", "{work}/ch06-horse2deer/run", *size, *seeded)
    sample = ("train.py", "--data", "sample", "--image-size", "256", "--epochs", "12", "--batch-size", "4", *seeded)
    return [
        step(
            f"ch09 horse2deer seed {seed}",
            6,
            horses,
            test,
            FIGURES,
            tiny=tiny,
            group="ch09 horse2deer",
            after="ch06 horse2deer",
        ),
        step(
            f"ch09 sample 256 seed {seed}",
            4,
            sample,
            test,
            FIGURES,
            tiny=("--image-size", "32", *tiny),
            group="ch09 256",
        ),
    ]


# one of each kind; the others of the kind come after these
HEADLINES = (
    "ch06 bench resnet18 compiled",
    "ch06 speed compiled",
    "ch12 bench transformer",
    "ch09 bench 256 batch 8 compiled",
)


def plan() -> list[Step]:
    horses = step("ch06 horse2deer", 1, ("{gpu}/horse2deer.py", "{data}", "{root}", "{run}"), data="cifar10")
    first, *more = ([*tables(seed), *cyclegans(seed)] for seed in (0, 1, 2))
    rest = [*benches(), *speed_runs(), *deployed(), horses, *first, *(one for steps in more for one in steps)]
    headlines = [next(one for one in rest if one.name == name) for name in HEADLINES]
    return [*tests(), *headlines, *(one for one in rest if one not in headlines)]


def once(steps: list[Step]) -> list[Step]:
    """For --dry, which compiles nothing and knows one seed: of steps that differ in these alone, the first."""
    alike = {re.sub(r" compiled$| seed \d", "", step.name): step for step in reversed(steps)}
    return [step for step in steps if step in alike.values()]


# ---- BENCHMARKS.md: ours beside the plain loop, chapter by chapter ----------------------------------------------------


def page() -> list[Step]:
    """What `nox -s bench -- --page` measures; the same commands as a reader would type, on whatever device there is."""
    auto, found = ("--precision", "auto"), []
    for arch, batch in (("mobilenet", "128"), ("resnet", "128"), ("resnet18", "64"), ("fastnet", "500")):
        # bf16 slows small filters down: mobilenet's recipe is in fp32
        precision = () if arch == "mobilenet" else auto
        found.append(bench(f"ch06 bench {arch}", 5, "--arch", arch, "--batch-size", batch, *precision))
    found.append(bench("ch09 bench sample", 3, "--data", "sample", *auto))
    for arch in ("fasttext", "textcnn", "bilstm"):
        words = ("--arch", arch, "--tokenizer", "char", "--data", "{data}", *ROOT, *auto)
        found.append(bench(f"ch11 bench {arch}", 3, *words, data="weibo"))
    for arch in ("general", "transformer"):
        words = ("--arch", arch, "--data", "{data}", *ROOT, *auto)
        found.append(bench(f"ch12 bench {arch}", 5, *words, data="cmn-eng"))
    formats = ("bench.py", *ON)
    few = ("--rounds", "2", "--formats", "eager", "export", "onnx")
    return [*found, step("ch13 bench formats", 5, formats, tiny=few, needs=("torchao",))]

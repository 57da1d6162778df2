"""The life of a run on data that people bring: what may be tested, what --resume takes, what is never overwritten."""

import contextlib
import hashlib
import http.server
import json
import multiprocessing
import os
import shlex
import shutil
import socket
import sys
import threading
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import START, exit_codes, fork
from PIL import Image

import compare
import datasets
import models
import options
import test as tester
import train
import utils

FEW = ("--arch", "lenet5", "--image-size", "32", "--epochs", "1", "--batch-size", "16", "--device", "cpu")


def split_of(run: Path) -> dict:
    return json.loads((run / "split.json").read_text("utf-8"))


def measured(run: Path, *words) -> dict:
    tester.main(["--run", str(run), "--device", "cpu", *map(str, words)])
    return json.loads((run / "test.json").read_text("utf-8"))


def draw(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes of 40 pictures, all different."""
    for i in range(80):
        draw(tmp_path / "pets" / ("cat", "dog")[i % 2] / f"{i}.png", i)
    return tmp_path / "pets"


def trained(folder, tmp_path, *words) -> Path:
    train.main(["--data", str(folder), *FEW, "--run", str(tmp_path / "run"), *words])
    return tmp_path / "run"


# ---- what may be tested -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("--no-val",), ("--limit", "20"), ("--loader", "files")])
def test_no_picture_that_trained_is_ever_tested_however_the_folder_grows(folder, tmp_path, words, capsys, monkeypatch):
    run = trained(folder, tmp_path, *words)
    split = split_of(run)
    before = set(split["train"]) | set(split["val"])
    assert len(split["train"]) == (20 if "--limit" in words else 80 - len(split["val"]) - len(split["test"]))
    for i in range(200, 230):  # the folder grows, and pictures get other names
        draw(folder / ("cat", "dog")[i % 2] / f"{i}.png", i)
    for i, path in enumerate(sorted((folder / "cat").iterdir())[:15]):
        path.rename(folder / "cat" / f"renamed {i}.png")
    shown, real = [], tester.predict

    def predict(model, meta, images, *rest):
        shown.append(images)
        return real(model, meta, images, *rest)

    monkeypatch.setattr(tester, "predict", predict)
    result = measured(run)
    pixels = {image.numpy().tobytes() for image in shown[0]}
    files = [p for p in folder.rglob("*.png") if datasets.read_image(p, 32).numpy().tobytes() in pixels]
    assert len(files) == result["pictures"] == len(pixels) >= len(split["test"])
    assert not {utils.fingerprint(p.read_bytes()) for p in files} & before
    said = capsys.readouterr().err
    assert "samples that came after the training" in said and ": 30, " in said


def test_changed_and_lost_pictures_are_named_and_copies_of_training_pictures_are_not_tested(tmp_path, capsys):
    for part, count in (("train", 12), ("test", 6)):
        for i in range(count):
            draw(tmp_path / "set" / part / ("cat", "dog")[i % 2] / f"{i}.png", i + 100 * (part == "test"))
    run = trained(f"{tmp_path}/set/", tmp_path)  # as a shell completes the name
    name = next(name for name in split_of(run)["train"].values() if "/cat/" in name)
    shutil.copy(tmp_path / "set" / name, tmp_path / "set" / "test" / "cat" / "copy.png")
    (tmp_path / "set" / "test" / "dog" / "1.png").unlink()
    draw(tmp_path / "set" / "test" / "dog" / "3.png", 999)
    capsys.readouterr()
    assert measured(run)["pictures"] == 5
    said = capsys.readouterr().err
    assert "that changed since the training: 1, test/dog/3.png" in said
    assert "of the training that are gone: 1, test/dog/1.png" in said
    assert "of the test part that trained or validated, and are not tested: 1" in said


def test_a_new_run_on_a_larger_folder_moves_no_picture_to_another_part(folder):
    first = datasets.load(str(folder), files_only=True, parts=("train", "val", "test"))
    for i in range(300, 340):
        draw(folder / ("cat", "dog")[i % 2] / f"{i}.png", i)
    second = datasets.load(str(folder), files_only=True, parts=("train", "val", "test"))
    for part in ("train", "val", "test"):
        assert {item.name for item in first.files[part]} <= {item.name for item in second.files[part]}


def test_a_folder_called_like_a_built_in_set_is_the_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder.rename("sample")
    args = options.parse(None, ["--data", "sample", "--arch", "mobilenet"])
    data, split = train.load_data(args)
    assert data.classes == ["cat", "dog"] and split["own"]
    options.fill_in_recipe(args, data, 64, len(data.splits["train"]))
    assert args.epochs > options.SAMPLE_EPOCHS  # not the drawn sample's recipe


# ---- --resume ---------------------------------------------------------------------------------------------------------


def test_a_finished_run_says_so_and_goes_on_with_more_epochs(folder, tmp_path, capsys):
    run = trained(folder, tmp_path, "--schedule", "linear", "--lr", "0.01", "--epochs", "2")
    before = {path: path.read_bytes() for path in run.iterdir()}
    capsys.readouterr()
    train.main(["--resume", str(run)])
    assert "is finished: 2 epochs" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    train.main(["--resume", str(run), "--epochs", "4"])
    assert "--epochs 2 -> 4: the schedule is laid out anew from epoch 3" in capsys.readouterr().out
    rates = [row["lr"] for row in utils.load_checkpoint(run / "last.pt")["history"]]
    assert rates == pytest.approx([0.01, 0.005, 0.005, 0.0025])  # halfway to the new end, then three quarters
    assert json.loads((run / "args.json").read_text("utf-8"))["epochs"] == 4
    with pytest.raises(SystemExit, match="--epochs 1: .* has done 4 already"):
        train.main(["--resume", str(run), "--epochs", "1"])


def test_a_run_cut_short_and_lengthened_follows_the_longer_runs_schedule(folder, tmp_path):
    trained(folder, tmp_path, "--epochs", "2")
    train.main(["--resume", str(tmp_path / "run"), "--epochs", "4"])
    train.main(["--data", str(folder), *FEW, "--epochs", "4", "--run", str(tmp_path / "long")])
    rates = [[row["lr"] for row in utils.load_checkpoint(tmp_path / r / "last.pt")["history"]] for r in ("run", "long")]
    assert rates[0][2:] == rates[1][2:]


@pytest.mark.parametrize(
    "words", [("--lr", "1"), ("--optimizer", "sgd"), ("--no-val",), ("--seed", "0"), ("--run", "x")]
)
def test_flags_beside_resume_are_refused_by_name_and_nothing_changes(folder, tmp_path, words):
    run = trained(folder, tmp_path)
    before = {path: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(SystemExit, match=f"leave out {words[0]}$"):
        train.main(["--resume", str(run), "--epochs", "3", *words])
    draw(folder / "cat" / "another.png", 1234)
    with pytest.raises(SystemExit, match="the data are not those of the run: 1 .* new, such as cat/another.png"):
        train.main(["--resume", str(run), "--epochs", "3"])
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_damaged_and_empty_names_of_runs_are_refused_in_one_line(tmp_path):
    (tmp_path / "args.json").write_text("")
    for words, message in (
        (["--resume", ""], "empty name"),
        (["--resume", str(tmp_path)], "args.json: cannot be read"),
        (["--run", "", "--quick"], "the name of the folder is empty"),
    ):
        with pytest.raises(SystemExit, match=message) as refusal:
            train.main([*words, "--device", "cpu"])
        assert "\n" not in str(refusal.value)
    (tmp_path / "args.json").write_text("[]")
    with pytest.raises(SystemExit, match="empty, or not a JSON object"):
        train.main(["--resume", str(tmp_path)])


def test_early_stopping_stops_and_class_weights_weigh(folder, tmp_path, capsys):
    run = trained(folder, tmp_path, "--patience", "2", "--epochs", "50", "--lr", "1e-9")
    assert utils.load_checkpoint(run / "best.pt")["epoch"] == 1  # no later one is better
    assert len(utils.load_checkpoint(run / "last.pt")["history"]) == 3  # the first is the best, then two more
    train.main(["--resume", str(run)])
    assert "is finished: 3 epochs" in capsys.readouterr().out
    assert models.balanced(torch.tensor([0, 0, 0, 1]), 2).tolist() == pytest.approx([2 / 3, 2])
    weights = models.balanced(torch.tensor([0] * 30 + [1] * 10), 2)
    logits, labels = torch.zeros(40, 2), torch.tensor([0] * 30 + [1] * 10)
    each = torch.nn.functional.cross_entropy(logits, labels, weights, reduction="none")
    assert each[:30].sum() == pytest.approx(each[30:].sum().item())


def test_a_run_starts_from_a_runs_own_weights(folder, tmp_path):
    run = trained(folder, tmp_path)
    args = options.parse(None, [*FEW, "--weights", str(run / "best.pt")])
    model = train.make_model(args, 2, torch.device("cpu"))
    saved = utils.load_checkpoint(run / "best.pt")["model"]
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


def test_the_parts_of_a_run_share_no_picture(folder, tmp_path, monkeypatch):
    """Read from the pictures that the loaders give, not from split.json."""
    args = options.parse(None, ["--data", str(folder), *FEW, "--no-flip", "--crop", "0", "--cutout", "0"])
    data, split = train.load_data(args)
    options.fill_in_recipe(args, data, 32, len(data.splits["train"]))
    loaders = train.make_loaders(data, args, torch.device("cpu"))[:2]
    seen = [{image.numpy().tobytes() for images, _ in loader for image in images.contiguous()} for loader in loaders]
    assert seen[0] and len(seen[1]) == len(split["val"]) and not seen[0] & seen[1]
    assert len({*split["train"]} | {*split["val"]} | {*split["test"]}) == 80


def test_few_pictures_get_enough_steps():
    for count in (20, 200, 2000, 20000):
        for arch in ("lenet5", "mobilenet", "fastnet"):
            args = options.parse(None, ["--arch", arch])
            options.fill_in_recipe(args, None, 64, count)
            assert args.epochs * (count // args.batch_size) >= 300 and args.batch_size <= max(8, count // 8)


class Fixed(torch.nn.Module):
    """A network whose logits are a parameter: its gradient is the loss's own formula."""

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([0.5, -0.2, 0.1]))
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.logits).expand(len(x), -1) if x.mean() > 5 else self.logits.expand(len(x), -1)


class OneBatch:
    """A loader of one batch."""

    epoch = 0

    def __init__(self, labels, value=0.0):
        self.batch = torch.full((len(labels), 3, 8, 8), value), torch.tensor(labels)

    def __len__(self):
        return 1

    def __iter__(self):
        yield self.batch


@pytest.mark.parametrize(("smoothing", "weights"), [(0.0, None), (0.3, None), (0.0, [1.0, 4.0, 2.0])])
def test_the_loss_is_smoothed_and_weighted_as_asked(smoothing, weights):
    model, labels = Fixed(), [0, 1, 1, 2]
    before = model.logits.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    args = Namespace(label_smoothing=smoothing, precision="fp32", lr=1.0, mixup=0.0)
    normalize = datasets.Normalize([0.0] * 3, [1 / 255] * 3)
    w = None if weights is None else torch.tensor(weights)
    train.train_one_epoch(model, normalize, OneBatch(labels), optimizer, scheduler, args, None, w)
    share = np.ones(3) if weights is None else np.array(weights)
    p = np.exp(before.numpy()) / np.exp(before.numpy()).sum()
    truth = np.eye(3)[labels] * (1 - smoothing) + smoothing / 3
    gradient = (share[labels][:, None] * (p - truth)).sum(0) / share[labels].sum()  # of -sum(truth * log p), weighted
    assert (before - model.logits.detach()).numpy() == pytest.approx(gradient, abs=1e-5)


def test_validation_is_without_dropout_and_changes_nothing():
    model = Fixed().train()
    normalize = datasets.Normalize([0.0] * 3, [1 / 255] * 3)
    torch.manual_seed(0)
    rows = [train.evaluate(model, normalize, OneBatch([0, 1, 2], 9.0), "fp32") for _ in range(8)]
    assert all(row == rows[0] for row in rows)
    expected = -torch.log_softmax(model.logits.detach(), 0).mean().item()
    assert rows[0]["val_loss"] == pytest.approx(expected, abs=1e-6)
    assert rows[0]["val_accuracy"] == pytest.approx(1 / 3) and model.logits.grad is None


def test_the_six_views_are_the_picture_its_mirror_image_and_both_shifted():
    class Pixel(torch.nn.Module):
        def forward(self, x):
            return x[:, 0, 2, 5:6]

    x = torch.arange(64.0).view(1, 1, 8, 8).expand(1, 3, 8, 8)
    here, mirrored = x[0, 0, 2, 5], x[0, 0, 2, 2]
    up_left, down_right = x[0, 0, 1, 4] + x[0, 0, 1, 1], x[0, 0, 3, 6] + x[0, 0, 3, 3]
    expected = 0.5 * (here + mirrored) / 2 + 0.25 * up_left / 2 + 0.25 * down_right / 2
    assert tester.six_views(Pixel(), x).item() == pytest.approx(expected.item())


# ---- folders and files ------------------------------------------------------------------------------------------------


def test_runs_that_start_together_never_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for flag in (None, "mine"):
        found, gate, real = [], threading.Barrier(8), Path.open

        def open_together(path, *words, gate=gate, real=real):
            """All have seen that the folder is empty before the first of them writes to it."""
            with contextlib.suppress(threading.BrokenBarrierError):
                gate.wait(5)
                gate.abort()  # from the second name on, nobody waits
            return real(path, *words)

        monkeypatch.setattr(Path, "open", open_together)

        def begin(flag=flag, found=found):
            found.append(utils.new_run(flag, "lenet5-sample"))

        threads = [threading.Thread(target=begin) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        monkeypatch.setattr(Path, "open", real)
        assert len(set(found)) == 8


def test_a_run_folder_in_an_odd_place(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"--run \.: this folder is not empty"):
        utils.new_run(".", "x")
    with pytest.raises(SystemExit, match="cannot make the run folder"):
        utils.new_run("file/run", "x")
    assert utils.new_run("file", "x") == Path("file-2")
    with pytest.raises(SystemExit, match="cannot make the folder file"):
        utils.output_folder("file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="the words are read as a POSIX shell reads them")
@pytest.mark.parametrize("name", ["resnet-sample", "vgg-scan export (2)", "vgg-it's $1", "vgg-猫;狗"])
def test_the_next_command_is_printed_as_a_shell_takes_it(name, tmp_path, capsys):
    run = tmp_path / name
    run.mkdir()
    rows = [{"epoch": 1, "val_accuracy": 0.5, "val_loss": 1.0}]
    train.finish(run, Namespace(no_val=False, arch="vgg", data="x"), {"history": rows, "seconds": 1.0})
    line = capsys.readouterr().out.splitlines()[-1].removeprefix("now: ")
    assert shlex.split(line) == ["python", "test.py", "--run", str(run)]
    (run / "args.json").write_text('{"epochs": 1}')
    assert utils.is_finished(run, Namespace(resume=str(run), epochs=1), 1)
    assert shlex.split(capsys.readouterr().out.split("longer: ")[1])[:2] == ["--resume", str(run)]


def test_devices_and_links_stay_what_they_are(tmp_path):
    utils.write_atomic("/dev/null", "nothing")
    assert not Path("/dev/null").is_file() and Path("/dev/null").exists()
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    utils.write_atomic(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real.txt").read_text() == "new"
    assert utils.free_name(tmp_path / "real.txt") == tmp_path / "real-2.txt" and utils.free_name("/dev/null") == Path(
        "/dev/null"
    )


def answer(words, output: int) -> None:
    """test.py as a program whose answers go to the file descriptor `output`, in ASCII."""
    os.dup2(output, 1), os.dup2(output, 2)
    sys.stdout, sys.stderr = (open(n, "w", encoding="ascii", closefd=False) for n in (1, 2))  # noqa: SIM115
    utils.start(lambda: tester.main(words))


@pytest.mark.skipif(START != "fork", reason="its processes must inherit open files")
def test_names_that_are_no_text_are_printed_and_written(folder, tmp_path):
    """A name in GBK, as a file from an old Windows archive has it; and a pipe whose reader has enough."""
    os.rename(folder / "cat" / "0.png", os.fsencode(folder / "cat") + "/图片.png".encode("gbk"))
    words = [str(folder), "--device", "cpu", "--out", str(tmp_path), "--weights", "weights/mobilenet.safetensors"]
    with open(tmp_path / "said.txt", "w+") as said:
        assert exit_codes([fork(answer, words, said.fileno())]) == [0], said.read()
        said.seek(0)
        assert said.read().count(".png: ") == 80
    reader, writer = os.pipe()
    os.close(reader)  # as `| head` does
    assert exit_codes([fork(answer, words, writer)]) == [1]
    os.close(writer)


def test_answers_of_two_calls_are_both_kept(folder, tmp_path):
    run = trained(folder, tmp_path)
    for _ in range(2):
        tester.main(
            [str(folder / "cat" / "0.png"), "--run", str(run), "--device", "cpu", "--out", str(tmp_path / "out")]
        )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["predictions-2.png", "predictions.png"]
    for _ in range(2):
        measured(run, "--export", tmp_path / "mine.safetensors")
    assert (tmp_path / "mine-2.safetensors").exists()
    _, meta = utils.load_weights(tmp_path / "mine.safetensors")
    assert meta["command"] == utils.command_of(utils.read_arguments(run), options.parse("", []))


def test_runs_are_compared_in_a_table_and_a_picture(folder, tmp_path, capsys):
    trained(folder, tmp_path, "--epochs", "2")
    measured(tmp_path / "run")
    capsys.readouterr()
    compare.main([str(tmp_path / "run"), str(folder), "--out", str(tmp_path / "curves.png")])
    header, row, _ = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["run", "arch", "data", "epochs"] and "accuracy" in row and row.split()[3] == "2"
    assert (tmp_path / "curves.png").stat().st_size > 1000
    with pytest.raises(SystemExit, match="none of these is the folder of a run"):
        compare.main([str(folder), str(tmp_path)])


def test_the_newest_run_is_tested_but_never_a_quick_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, quick in (("a", False), ("b", True)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "best.pt").write_bytes(b"")
        (folder / "args.json").write_text(json.dumps({"quick": quick}))
        os.utime(folder / "best.pt", (1e9, 1e9 + quick))
    assert utils.newest_run() == Path("runs/a")


def test_other_libraries_files_are_refused_in_one_line(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(SystemExit, match="not of a run of this chapter"):
        tester.main(["--weights", str(tmp_path / "model.safetensors"), "--device", "cpu"])
    with pytest.raises(SystemExit, match="holds a network of another kind, not a lenet5"):
        train.main(["--data", "sample", "--quick", *FEW, "--weights", str(tmp_path / "model.safetensors")])


# ---- downloads --------------------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    """A web server on this machine that breaks the first answer off in the middle, and goes on from there when asked to.
    `.asked`: the Range of each request; `.body`: what it serves."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(self.headers.get("Range"))
            begin = int(self.headers["Range"].split("=")[1].rstrip("-")) if "Range" in self.headers else 0
            if begin >= len(server.body):
                self.send_response(416)
                self.end_headers()
                return
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(server.body) - begin))
            self.send_header("Content-Range", f"bytes {begin}-{len(server.body) - 1}/{len(server.body)}")
            self.end_headers()
            self.wfile.write(server.body[begin : len(server.body) // 2 if len(server.asked) == 1 else None])

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.body = [], os.urandom(300_000)
        server.url = f"http://127.0.0.1:{server.server_port}/set.zip"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_broken_download_goes_on_from_where_it_stopped(server, tmp_path):
    path, expected = tmp_path / "data" / "set.zip", f"md5:{hashlib.md5(server.body).hexdigest()}"
    with pytest.raises(SystemExit, match="could not download set.zip .*it broke off after 150,000 of 300,000 bytes"):
        utils.download([server.url], path, expected)
    assert [p.name for p in path.parent.iterdir()] == ["set.zip.part"]
    utils.download([server.url], path, expected)
    assert path.read_bytes() == server.body and server.asked == [None, "bytes=150000-"]
    path.rename(tmp_path / "data" / "set.zip.part")  # whole, but killed before it got its name
    utils.download([server.url], path, expected)
    assert path.read_bytes() == server.body and [p.name for p in path.parent.iterdir()] == ["set.zip"]


def test_a_whole_but_wrong_download_is_kept_and_named(server, tmp_path):
    server.asked.append(None)  # no break this time
    with pytest.raises(SystemExit, match="not the file expected .its MD5 is not 0.*put it into .* by hand .MD5 0"):
        utils.download([server.url], tmp_path / "set.zip", "md5:0")
    assert (tmp_path / "set.zip.damaged").read_bytes() == server.body


def test_an_archive_that_the_user_put_there_is_never_deleted(tmp_path):
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"half of it")
    with pytest.raises(SystemExit, match="cifar-10-python.tar.gz: damaged .*; move it away"):
        datasets.load("cifar10", str(tmp_path))
    assert archive.read_bytes() == b"half of it"


# ---- drawing ----------------------------------------------------------------------------------------------------------


def test_names_with_dollars_in_chinese_and_200_classes_are_drawn(tmp_path, recwarn):
    torch.manual_seed(0)
    for classes in (["$a$", "b_$", "猫", "狗^2"], [f"class number {i} of two hundred" for i in range(200)]):
        labels = torch.arange(len(classes)).repeat(3)
        probabilities = torch.rand(len(labels), len(classes)).softmax(1)
        result = tester.measure(probabilities, labels, classes)
        tester.print_table(result)
        tester.draw_confusion(result, tmp_path / "confusion.png")
        tester.draw_pr_roc(probabilities, labels, classes, tmp_path / "pr.png")
        images = torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8)
        tester.draw_mistakes(images, probabilities, labels, classes, tmp_path / "mistakes.png")
    assert not [
        warning for warning in recwarn if "Glyph" in str(warning.message)
    ]  # said in words, where no font has it
    figure = utils.new_figure(2, 2, "$a$")
    assert figure.text(0, 0, "$a$").get_parse_math() is False  # and so it is drawn as it is


def test_tables_keep_their_columns_apart(capsys):
    utils.print_table([["class", "n"], ["猫", "123,456,789"], ["a long name", "1"]])
    assert capsys.readouterr().out.splitlines() == [
        "class                  n",
        "猫           123,456,789",
        "a long name            1",
    ]


# ---- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "bf16_seconds", "picked", "warned"),
    [("auto", 0.5, "bf16", 0), ("auto", 3, "fp32", 0), ("auto", 1, "fp32", 0), ("bf16", 0.5, "bf16", 0),
     ("bf16", 3, "bf16", 1), ("fp32", 0.5, "fp32", 0)],
)  # fmt: skip
def test_auto_takes_the_faster_precision_and_a_slower_one_gets_a_warning(
    wanted, bf16_seconds, picked, warned, monkeypatch, capsys
):
    seconds = {torch.float32: 1, torch.bfloat16: bf16_seconds}
    monkeypatch.setattr(utils, "product_time", lambda dtype, device: seconds[dtype])
    assert utils.pick_precision(wanted, torch.device("cpu")) == picked
    said = capsys.readouterr()
    assert said.err.count("--precision auto would take fp32") == warned
    assert said.out.startswith(f"precision {picked}: ") == (wanted != "fp32" and not warned)


def test_a_run_keeps_the_precision_that_auto_picked(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(utils, "product_time", lambda dtype, device: 1 + (dtype is torch.float32))
    run = trained(folder, tmp_path, "--precision", "auto")
    assert json.loads((run / "args.json").read_text("utf-8"))["precision"] == "bf16"
    monkeypatch.setattr(utils, "product_time", lambda dtype, device: 1 + (dtype is torch.bfloat16))
    train.main(["--resume", str(run), "--epochs", "2"])
    assert json.loads((run / "args.json").read_text("utf-8"))["precision"] == "bf16"


def test_product_time_is_of_one_product():
    assert 1e-6 < utils.product_time(torch.float32, torch.device("cpu"), 0.02) < 0.1


# ---- flags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    ["--lr -1", "--lr nan", "--lr inf", "--label-smoothing 2", "--workers -1", "--limit 0", "--seed -1", "--epochs 0",
     "--batch-size 0", "--weight-decay -1", "--colour 2", "--crop -1", "--cutout -1", "--image-size 0", "--epochs 1.5"],
)  # fmt: skip
def test_every_number_has_its_range(words):
    with pytest.raises(SystemExit, match=f"argument {words.split()[0]}: '.*': must be a ") as refusal:
        options.parse(None, words.split())
    assert "\n" not in str(refusal.value)


def test_help_states_the_ranges(capsys):
    with pytest.raises(SystemExit):
        options.parse("doc", ["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "[a number from 0 to 1]" in said and "[a number above 0]" in said and "[a whole number, 1 or more]" in said


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
def test_small_pictures_and_batches_of_one_train_or_are_refused_in_one_line(folder, tmp_path, size):
    for arch in ("lenet5", "mobilenet", "fastnet"):
        words = ["--image-size", str(size), "--batch-size", "1", "--limit", "4", "--arch", arch]
        try:
            train.main(["--data", str(folder), *FEW, *words, "--run", str(tmp_path / arch)])
        except SystemExit as refusal:
            assert f"--arch {arch} cannot take pictures of {size} pixels" in str(refusal)
            assert "\n" not in str(refusal) and not (tmp_path / arch).exists()


# ---- several machines -------------------------------------------------------------------------------------------------


def as_on_a_machine(rank: int, port: int, here: Path, words: list) -> None:
    """train.main(words) in a process of its own, as torchrun starts it on machine `rank`; prints the network's weights."""
    here.mkdir(exist_ok=True)
    os.chdir(here)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1), os.dup2(output, 2)
    sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115 (they stay open)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "GROUP_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    make, made = train.make_model, []
    train.make_model = lambda *these: made.append(make(*these)) or made[-1]
    utils.start(lambda: train.main([*map(str, words), "--device", "cpu"]))
    print("weights:", json.dumps([p.sum().item() for p in made[0].parameters()]), flush=True)


@pytest.fixture
def two_machines(tmp_path):
    """two_machines(words, words) -> (exit status, output) of two trainings, each in a folder of its own. They are forked from
    here, where everything is imported already."""

    def begin(*words):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = multiprocessing.get_context(START)
        folders = [tmp_path / f"machine{rank}" for rank in range(2)]
        rows = zip(range(2), [port] * 2, folders, words, strict=True)
        programs = [context.Process(target=as_on_a_machine, args=row) for row in rows]
        for program in programs:
            program.start()
        for program in programs:
            program.join(100)
            if program.is_alive():
                program.kill()
                program.join()
        return [(p.exitcode, (here / "output.txt").read_text()) for p, here in zip(programs, folders, strict=True)]

    return begin


def test_two_machines_train_resume_and_end_together(two_machines, tmp_path):
    """The run lies on the first machine alone, and is resumed all the same."""
    words = ("--data", "sample", "--arch", "lenet5", "--limit", "64", "--epochs", "1", "--batch-size", "16")
    first, second = two_machines(words, words)
    assert (first[0], second[0]) == (0, 0), first[1] + second[1]
    both = [json.loads(line[9:]) for line in (first[1] + second[1]).splitlines() if line.startswith("weights: ")]
    assert len(both) == 2 and both[0] == both[1]  # one network, not two
    assert (tmp_path / "machine0/runs/lenet5-sample/last.pt").exists() and not (tmp_path / "machine1/runs").exists()
    resumed = ("--resume", "runs/lenet5-sample", "--epochs", "2")
    first, second = two_machines(resumed, resumed)
    assert (first[0], second[0]) == (0, 0), first[1] + second[1]
    assert utils.load_checkpoint(tmp_path / "machine0/runs/lenet5-sample/last.pt")["epoch"] == 2


def test_one_machines_error_ends_all_with_its_line(two_machines, folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    draw(other / "cat" / "one more.png", 77)
    for words, message in (
        ((["--data", folder, *FEW], ["--data", tmp_path / "nowhere", *FEW]), "process 1: error: --data"),
        ((["--data", folder, *FEW], ["--data", other, *FEW]), "process 1 has another data than process 0"),
        (
            (["--data", folder, *FEW], ["--data", folder, *FEW, "--lr", "0.5"]),
            "process 1 has another recipe than process 0",
        ),
    ):
        for status, output in two_machines(*words):
            assert status == 1 and message in output and "Traceback" not in output, output

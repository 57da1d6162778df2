"""The sample, folders of every layout, the sets' mirrors and archives, and the loader."""

import hashlib
import http.server
import multiprocessing
import threading
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import datasets
import sample
import utils


def test_sample_is_drawn_from_its_seed_and_the_judge_knows_it():
    train, again = (datasets.load("sample", limit=40, image_size=48) for _ in range(2))
    assert torch.equal(train.a, again.a) and train.a.shape == (40, 3, 54, 54)
    test = datasets.load("sample", part="test", limit=40, image_size=54)
    assert not torch.equal(test.a, train.a)
    for kind, pictures in enumerate((test.a, test.b)):
        assert (sample.judge(pictures) == kind).float().mean() > 0.95
    grey = torch.full((1, 3, 16, 16), 128, dtype=torch.uint8)
    tinted = torch.tensor([250, 150, 20], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    assert sample.judge(torch.cat([grey, tinted])).tolist() == [2, 2]


def test_sample_pairs_belong_together():
    data = datasets.load("sample", mode="pix2pix", limit=4, image_size=32)
    assert len(data.a) == len(data.b) == 4 and sample.judge(data.b).tolist() == [0, 1, 0, 1]
    fruit = (data.a == torch.tensor(sample.LABELS["apple"]).view(3, 1, 1)).all(1)  # where the label map says apple
    assert data.b[0, 0][fruit[0]].float().mean() > 2 * data.b[0, 2][fruit[0]].float().mean()  # the picture is red


def test_the_papers_and_the_courses_layout(domains):
    papers = domains("papers", trainA=3, trainB=5)
    courses = domains("courses", train_A=3, train_B=5)
    one, other = (datasets.load(str(folder), image_size=16) for folder in (papers, courses))
    assert torch.equal(one.a, other.a) and torch.equal(one.b, other.b)
    assert (len(one.a), len(one.b)) == (3, 5) and one.a.shape[1:] == (3, 18, 18) and one.names_a[0] == "0.png"


def test_missing_and_empty_domains_are_named(domains):
    folder = domains(trainA=2)
    with pytest.raises(SystemExit, match=r"expected the folders trainA and trainB in it, .*there is no trainB"):
        datasets.load(str(folder))
    (folder / "trainB").mkdir()
    with pytest.raises(SystemExit, match="trainB: no pictures in this folder"):
        datasets.load(str(folder))
    with pytest.raises(SystemExit, match="there is no testA"):
        datasets.load(str(folder), part="test")


def test_odd_pictures(domains, capsys):
    """Grey, sixteen colours, half transparent, on its side, huge: read. Broken: named, counted and left out."""
    folder = domains(trainA=1, trainB=1)
    here = folder / "trainA"
    Image.new("L", (30, 30), 77).save(here / "a_grey.png")
    Image.new("RGBA", (30, 30), (255, 0, 0, 0)).save(here / "b_clear.png")
    Image.new("P", (30, 30)).save(here / "c_palette.png")
    Image.new("RGB", (5000, 3000), "blue").save(here / "d_huge.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    half = Image.new("RGB", (40, 40), "white")
    half.paste("black", (0, 0, 20, 40))
    half.save(here / "e_turned.jpg", exif=exif)
    (here / "f_broken.jpg").write_bytes(b"no picture at all")
    data = datasets.load(str(folder), image_size=16, workers=1)
    said = capsys.readouterr().out
    assert "skipped" in said and "f_broken.jpg: not a picture" in said and "skipped 1 of 7 pictures" in said
    a = dict(zip(data.names_a, data.a, strict=True))
    assert (a["a_grey.png"] == 77).all() and (a["b_clear.png"] == 255).all()
    assert a["d_huge.png"].flatten(1).float().mean(1).tolist() == [0, 0, 255]
    assert a["e_turned.jpg"][:, 2].max() < 60 and a["e_turned.jpg"][:, -3].min() > 200


def test_spawned_workers_read_what_the_main_process_reads(domains):
    """On Windows and macOS worker processes start anew and get the data set by pickle."""
    folder = str(domains(trainA=3, trainB=3))
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        one, two = (datasets.load(folder, image_size=16, workers=workers) for workers in (0, 1))
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert torch.equal(one.a, two.a) and torch.equal(one.b, two.b)


def test_a_folder_without_one_readable_picture(domains):
    folder = domains(trainA=1, trainB=1)
    (folder / "trainA" / "0.png").write_text("dear reader")
    with pytest.raises(SystemExit, match="none of the 1 pictures in .*trainA can be read, the first being .*0.png"):
        datasets.load(str(folder), image_size=16)


def test_pairs_by_name_and_side_by_side(tmp_path):
    for domain, colour in (("A", "red"), ("B", "blue")):
        (tmp_path / "names" / f"train{domain}").mkdir(parents=True)
        for i in (10, 9):
            Image.new("RGB", (20 + i, 20), colour).save(tmp_path / "names" / f"train{domain}" / f"{i}_{domain}.png")
    (tmp_path / "halves" / "train").mkdir(parents=True)
    both = Image.new("RGB", (40, 20), "red")
    both.paste("blue", (20, 0, 40, 20))
    both.save(tmp_path / "halves" / "train" / "1.png")
    for name in ("names", "halves"):
        data = datasets.load(str(tmp_path / name), mode="pix2pix", image_size=16)
        assert data.a[0, :, 9, 9].tolist() == [255, 0, 0] and data.b[0, :, 9, 9].tolist() == [0, 0, 255]
    assert [n.split("_")[0] for n in datasets.load(str(tmp_path / "names"), mode="pix2pix", image_size=16).names_a] == [
        "10",
        "9",
    ]
    (tmp_path / "names" / "trainB" / "9_B.png").unlink()
    with pytest.raises(SystemExit, match="9_A.png: has no partner of the same name in the other domain"):
        datasets.load(str(tmp_path / "names"), mode="pix2pix", image_size=16)


# ---- the sets by name -------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(domains, tmp_path, monkeypatch):
    """An archive laid out as the paper's, known to datasets.py as the set `fruit`, and to --data auto as the default."""
    folder = domains("fruit", trainA=2, trainB=3, testA=1, testB=1)
    path = tmp_path / "served" / "fruit.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        for picture in folder.rglob("*.png"):
            file.write(picture, picture.relative_to(tmp_path))
    monkeypatch.setitem(datasets.SETS, "fruit", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setitem(datasets.DEFAULT_SET, "cyclegan", "fruit")
    monkeypatch.setattr(datasets, "TIMEOUT", 5)
    return path


@pytest.fixture
def server(archive, monkeypatch):
    """A web server on this machine: /wrong/ has another file of that name, /right/ the right one, everything else nothing."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = {"/wrong/fruit.zip": b"something else", "/right/fruit.zip": archive.read_bytes()}.get(self.path)
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_dead_hosts_missing_and_wrong_files_give_the_next_mirror(server, tmp_path, monkeypatch, capsys):
    dead = "http://127.0.0.1:1/"
    monkeypatch.setattr(datasets, "MIRRORS", (dead, f"{server}/none/", f"{server}/wrong/", f"{server}/right/"))
    data = datasets.load("auto", str(tmp_path / "data"), image_size=16)
    assert (data.name, len(data.a), len(data.b)) == ("fruit", 2, 3)
    said = capsys.readouterr()
    assert said.err.count("  no: ") == 3 and "search for fruit on https://opendatalab.com" in said.out
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["fruit", "fruit.zip", "fruit.zip.damaged"]
    monkeypatch.setattr(datasets, "MIRRORS", ())
    assert (
        len(datasets.load("fruit", str(tmp_path / "data"), part="test", image_size=16).a) == 1
    )  # nothing is fetched twice


def test_without_a_mirror_auto_is_the_sample_and_says_what_to_put_where(archive, server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets, "MIRRORS", ("http://127.0.0.1:1/", f"{server}/wrong/"))
    root = tmp_path / "data"
    assert datasets.load("auto", str(root), limit=2, image_size=16).name == "sample"
    said = capsys.readouterr().err
    assert "SAMPLE" in said and "put it into" in said and str(root) in said
    with pytest.raises(SystemExit, match=r"could not download fruit.zip .*not the file expected.*by hand \(SHA256"):
        datasets.load("fruit", str(root))
    kept = sorted(path.name for path in root.iterdir())
    assert kept == ["fruit.zip-2.damaged", "fruit.zip.damaged"], "what came is kept, under a name that says what it is"
    (root / "fruit.zip").write_bytes(archive.read_bytes())  # by hand
    assert datasets.load("fruit", str(root), image_size=16).name == "fruit"


def test_damaged_and_treacherous_archives_are_refused(archive, tmp_path, monkeypatch):
    root = tmp_path / "data"
    root.mkdir()
    (root / "fruit.zip").write_bytes(archive.read_bytes()[:500])
    with pytest.raises(SystemExit, match="fruit.zip: damaged"):
        datasets.load("fruit", str(root))
    with zipfile.ZipFile(root / "fruit.zip", "w") as file:
        file.writestr("fruit/trainA/0.png", b"")
        file.writestr("../../escaped.png", b"")
    monkeypatch.setitem(datasets.SETS, "fruit", utils.hash_of(root / "fruit.zip"))
    with pytest.raises(SystemExit, match=r"refused, since \.\./\.\./escaped.png would land outside"):
        datasets.load("fruit", str(root))
    assert not list(tmp_path.rglob("escaped.png")) and [p.name for p in root.iterdir()] == ["fruit.zip"]


# ---- the loader -------------------------------------------------------------------------------------------------------


def numbered(count, side=18):
    """Pictures that tell their number and, in the other channels, the place of each pixel."""
    y, x = np.mgrid[0:side, 0:side]
    return torch.stack([torch.from_numpy(np.stack([np.full_like(x, i), y, x])).byte() for i in range(count)])


def test_an_epoch_is_as_long_as_the_larger_domain_and_the_smaller_one_begins_again():
    data = datasets.Data("numbered", numbered(10), numbered(4), [], [], 16)
    loader = datasets.PairLoader(data, 5, torch.device("cpu"))
    epoch = [[datasets.to_pixels(domain) for domain in batch] for batch in loader]
    assert len(epoch) == len(loader) == 2 and epoch[0][0].shape == (5, 3, 16, 16)
    a, b = (torch.cat(domain)[:, 0, 0, 0] for domain in zip(*epoch, strict=True))
    assert sorted(a.tolist()) == list(range(10))
    assert sorted(b[:4].tolist()) == sorted(b[4:8].tolist()) == [0, 1, 2, 3]
    again = next(iter(loader))
    loader.epoch = 1
    assert torch.equal(again[0], datasets.to_network(epoch[0][0])) and not torch.equal(again[0], next(iter(loader))[0])


@pytest.mark.parametrize("flip", [True, False])
def test_pairs_are_cropped_and_mirrored_alike(flip):
    data = datasets.Data("numbered", numbered(60), numbered(60), [], [], 16)
    a, b = map(datasets.to_pixels, next(iter(datasets.PairLoader(data, 60, torch.device("cpu"), 0, True, flip))))
    assert torch.equal(a, b)
    corners = {tuple(sorted((x, y))) for y, x in zip(a[:, 1, 0, 0].tolist(), a[:, 2, 0, 0].tolist(), strict=True)}
    mirrored = (a[:, 2, 0, 0] > a[:, 2, 0, 15]).float().mean().item()
    assert len(corners) > 3 and (0.25 < mirrored < 0.75 if flip else mirrored == 0)


def test_pixels_survive_the_way_to_the_network_and_back():
    pixels = torch.arange(256).byte().view(1, 1, 16, 16).expand(1, 3, 16, 16)
    x = datasets.to_network(pixels)
    assert (x.min().item(), x.max().item()) == (-1, 1)
    assert torch.equal(datasets.to_pixels(x), pixels)

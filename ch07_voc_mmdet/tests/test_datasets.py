"""datasets.py and voc.py: VOC folders are read as they are, faults are named, COCO and back loses nothing."""

import io
import json
import re
import tarfile

import numpy as np
import pytest
from PIL import Image

import datasets
import plugins
import sample
import utils
import voc
from voc import Thing


def test_the_sample_is_the_same_for_the_same_seed_and_has_what_voc_has():
    scenes = sample.make(48, seed=3)
    again = sample.make(48, seed=3)
    assert all(np.array_equal(a, b) and x == y for (a, x), (b, y) in zip(scenes, again, strict=True))
    things = [thing for _, found in scenes for thing in found]
    assert {thing["name"] for thing in things} == set(sample.CLASSES)
    for flag in ("difficult", "truncated", "occluded"):
        assert 0 < sum(thing[flag] for thing in things) < len(things)
    assert [i for i, (_, found) in enumerate(scenes) if not found] == [11, 23, 35, 47]
    for picture, found in scenes:
        assert picture.size == (160, 128)
        for left, top, right, bottom in (thing["box"] for thing in found):
            assert 0 <= left < right <= 160 and 0 <= top < bottom <= 128


def test_sample_boxes_fit_what_is_drawn():
    """A balloon alone before white: its box is where the picture is not white."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        canvas = Image.new("RGB", (sample.SCALE * (160 + 80), sample.SCALE * (128 + 80)), "white")
        pen = sample.Pen(canvas, rng)
        sample.balloon(pen, (200, 0, 0), (90, 0, 0))
        mask = np.asarray(pen.mask)
        found = sample.label("balloon", mask, mask)
        inner = np.asarray(canvas)[80:-80, 80:-80].min(2) < 255
        if found:
            left, top, right, bottom = sample.extent(inner)
            assert np.abs(np.array(found["box"]) - np.array([left, top, right, bottom]) / 2).max() < 1


def test_a_voc_annotation_is_read_as_it_is_meant(own_scenes):
    """Pixels count from 1, and the last one belongs to the box."""
    path = voc.xml_path(own_scenes, "train0000")
    path.write_text(
        "<annotation><size><width>160</width><height>128</height><depth>3</depth></size>"
        "<object><name>car</name><truncated>1</truncated><difficult>0</difficult>"
        "<bndbox><xmin>1</xmin><ymin>11</ymin><xmax>160</xmax><ymax>20</ymax></bndbox>"
        "<part><name>wheel</name><bndbox><xmin>3</xmin><ymin>12</ymin><xmax>9</xmax><ymax>20</ymax></bndbox></part>"
        "</object></annotation>"
    )
    annotation = voc.read_annotation(own_scenes, "train0000")
    assert annotation.things == [Thing("car", (0, 10, 160, 20), truncated=True)]
    assert (annotation.width, annotation.height) == (160, 128)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda x: x.write_text(x.read_text()[:-20]), r"train0000.xml: not well-formed XML \("),
        (lambda x: x.unlink(), r"train0000.xml: listed, but there is no such file"),
        (lambda x: (x.parents[1] / "JPEGImages" / "train0000.jpg").unlink(), r"its picture .*train0000.jpg is missing"),
        (lambda x: Image.new("RGB", (9, 7)).save(x.parents[1] / "JPEGImages" / "train0000.jpg"),
         r"says 160 x 128, but the picture is 9 x 7"),
        (lambda x: (x.parents[1] / "JPEGImages" / "train0000.jpg").write_text("hello"), r"not a picture that can be read"),
        (lambda x: add(x, "cat", 1, 1, 5, 5), r"'cat' is none of the classes: balloon, boat"),
        (lambda x: add(x, "car", 9, 1, 5, 5), r"the box \(9, 1, 5, 5\) of the car is empty"),
        (lambda x: add(x, "car", 9, 1, "nan", 5), r"the car has no bndbox of four numbers"),
        (lambda x: add(x, "car", 100, 100, 161, 128), r"\(100, 100, 161, 128\) of the car reaches out of the 160 x 128"),
        (lambda x: add(x, "car", 0, 100, 50, 128), r"\(0, 100, 50, 128\) of the car reaches out of"),
        (lambda x: add(x, "car", "left", 1, 5, 5), r"the car has no bndbox of four numbers"),
        (lambda x: voc.write_list(x.parents[1], "train", ["train0000", "train0000"]), r"train0000 is listed more than once"),
        (lambda x: voc.write_list(x.parents[1], "val", ["train0000"]), r"train0000 is in more than one part"),
    ],
)  # fmt: skip
def test_check_names_every_fault(own_scenes, spoil, fault, capsys):
    (own_scenes / "classes.txt").write_text("\n".join(sample.CLASSES))
    datasets.main(["--data", str(own_scenes), "--check"])
    assert "no faults in 12 pictures" in capsys.readouterr().out
    spoil(voc.xml_path(own_scenes, "train0000"))
    with pytest.raises(SystemExit, match=r"faults in .*own"):
        datasets.main(["--data", str(own_scenes), "--check"])
    out = capsys.readouterr().out
    assert len([line for line in out.splitlines() if re.search(fault, line)]) == 1, out


def add(path, name, xmin, ymin, xmax, ymax):
    sides = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    thing = f"<object><name>{name}</name><bndbox>{sides}</bndbox></object></annotation>"
    path.write_text(path.read_text().replace("</annotation>", thing))


def test_training_stops_at_the_first_fault_in_one_line(own_scenes):
    add(voc.xml_path(own_scenes, "train0003"), "car", "left", 1, 5, 5)
    with pytest.raises(SystemExit, match="train0003.xml: the car has no bndbox .* --check` names every fault"):
        list(datasets.load(str(own_scenes)).annotations("train"))


def test_voc_to_coco_and_back_is_the_same(own_scenes, tmp_path):
    datasets.main(["--data", str(own_scenes), "--to-coco", str(tmp_path / "coco")])
    for part in datasets.PARTS:
        words = ["--images", str(own_scenes / "JPEGImages"), "--out", str(tmp_path / "back"), "--part", part]
        datasets.main(["--from-coco", str(tmp_path / "coco" / f"{part}.json"), *words])
    before, after = datasets.load(str(own_scenes)), datasets.load(str(tmp_path / "back"))
    assert before.classes == after.classes
    for part in datasets.PARTS:
        first, second = list(before.annotations(part)), list(after.annotations(part))
        assert [a.id for a in first] == [a.id for a in second]
        assert [a.things for a in first] == [a.things for a in second]
        assert all(a.image.read_bytes() == b.image.read_bytes() for a, b in zip(first, second, strict=True))


def boxes_on(names, width=40, height=30):
    """A COCO file of boxes: one picture a name, on each a box whose left is the picture's number."""
    images = [{"id": i, "file_name": name, "width": width, "height": height} for i, name in enumerate(names)]
    rows = [{"id": i, "image_id": i, "category_id": 1, "bbox": [i, 2, 5, 6]} for i in range(len(names))]  # no iscrowd
    return {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cat"}]}


def convert(tmp_path, coco, part="train"):
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    words = ["--images", str(tmp_path / "pictures"), "--out", str(tmp_path / "out"), "--part", part]
    datasets.main(["--from-coco", str(tmp_path / "coco.json"), *words])


def lefts(tmp_path, part):
    """The left side of the one box on each picture of a part."""
    things = (voc.read_annotation(*item).things for item in voc.read_list(tmp_path / "out", part))
    return [thing.box[0] for (thing,) in things]


@pytest.mark.parametrize("same", [True, False])
def test_pictures_of_one_name_do_not_overwrite_each_other(tmp_path, same):
    """In two folders, with two suffixes, in two parts; whether their pixels differ or not."""
    names = ["a/frame_0.jpg", "b/frame_0.jpg", "b/frame_0.png", "c d/two words.webp"]
    for shade, name in enumerate(names):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (40, 30), 0 if same else 60 * shade).save(tmp_path / "pictures" / name)
    convert(tmp_path, boxes_on(names))
    convert(tmp_path, boxes_on(names[:2]) | {"categories": [{"id": 1, "name": "dog"}]}, "val")
    assert lefts(tmp_path, "train") == [0, 1, 2, 3] and lefts(tmp_path, "val") == [0, 1]
    ids = [image_id for part in ("train", "val") for _, image_id in voc.read_list(tmp_path / "out", part)]
    assert len(set(ids)) == 6 and "two words" in ids
    assert (tmp_path / "out" / "classes.txt").read_text() == "cat\ndog\n"
    convert(tmp_path, boxes_on(names))  # once more: the same pictures keep their IDs
    assert [image_id for _, image_id in voc.read_list(tmp_path / "out", "train")] == ids[:4]


def test_a_picture_that_no_list_names_is_not_overwritten(tmp_path):
    for folder, shade in (("pictures", 0), ("out/JPEGImages", 99)):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("L", (40, 30), shade).save(tmp_path / folder / "1.jpg")
    before = (tmp_path / "out" / "JPEGImages" / "1.jpg").read_bytes()
    convert(tmp_path, boxes_on(["1.jpg"]))
    assert (tmp_path / "out" / "JPEGImages" / "1.jpg").read_bytes() == before
    assert [image_id for _, image_id in voc.read_list(tmp_path / "out", "train")] == ["1-2"]


def test_linked_pictures_and_pictures_in_their_place_are_converted(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "JPEGImages").mkdir(parents=True)
    Image.new("L", (40, 30)).save(tmp_path / "elsewhere" / "1.jpg")
    Image.new("L", (40, 30), 9).save(tmp_path / "out" / "JPEGImages" / "2.jpg")
    (tmp_path / "pictures").symlink_to(tmp_path / "out" / "JPEGImages")
    (tmp_path / "pictures" / "1.jpg").symlink_to(tmp_path / "elsewhere" / "1.jpg")
    convert(tmp_path, boxes_on(["1.jpg", "2.jpg"]))
    assert lefts(tmp_path, "train") == [0, 1]
    assert len(list((tmp_path / "out" / "JPEGImages").iterdir())) == 2


def test_pictures_are_looked_at_upright_everywhere(own_scenes, tmp_path):
    """A camera stored it lying; its annotation, made while looking at it, has the upright size."""
    picture = own_scenes / "JPEGImages" / "train0000.jpg"
    lying = Image.new("RGB", (80, 60), "red")
    exif = lying.getexif()
    exif[0x0112] = 6  # a quarter turn
    lying.save(picture, exif=exif)
    path = voc.xml_path(own_scenes, "train0000")
    path.write_text(voc.to_xml("train0000.jpg", (60, 80), [voc.Thing("car", (5, 5, 20, 70))]))
    data = datasets.load(str(own_scenes))
    assert datasets.check(data) == []
    annotation = voc.read_annotation(own_scenes, "train0000")
    assert voc.draw_truth(annotation, data.classes).size == (60, 80)
    assert plugins.read_pixels(picture).shape == (80, 60, 3)
    path.write_text(path.read_text().replace("<width>60</width>", "<width>0</width>"))
    assert voc.read_annotation(own_scenes, "train0000").width == 60


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("<annotation>", '<annotation xmlns="http://example.org/voc">').encode(),
        lambda text: b'<?xml version="1.0" encoding="GBK"?>\n' + text.replace("car", "汽车").encode("gbk"),
        lambda text: b'<?xml version="1.0" encoding="gb2312"?>\n' + text.replace("car", "汽车").encode("gb2312"),
        lambda text: '<?xml version="1.0" encoding="utf-8"?>\n'.encode("utf-8-sig") + text.encode(),
        lambda text: text.replace("car", "汽车").encode("utf-16"),
    ],
    ids=["namespace", "GBK", "gb2312", "byte-order mark", "UTF-16"],
)
def test_xml_as_tools_write_it(own_scenes, change):
    path = voc.xml_path(own_scenes, "train0001")
    size = voc.read_annotation(own_scenes, "train0001")
    text = voc.to_xml("train0001.jpg", (size.width, size.height), [voc.Thing("car", (5, 5, 20, 30))])
    path.write_bytes(change(text))
    (thing,) = voc.read_annotation(own_scenes, "train0001").things
    assert thing.name in ("car", "汽车") and thing.box == (5, 5, 20, 30)
    assert thing.name in datasets.load(str(own_scenes)).classes


def test_lists_and_classes_as_tools_write_them(own_scenes):
    lists = own_scenes / "ImageSets" / "Main"
    for folder, suffix in (("Annotations", ".xml"), ("JPEGImages", ".jpg")):
        (own_scenes / folder / f"train0000{suffix}").rename(own_scenes / folder / f"my 照片 1{suffix}")
    (lists / "train.txt").write_bytes("my 照片 1\r\ntrain0001  1\r\n\r\n".encode("gbk"))
    (own_scenes / "classes.txt").write_bytes("balloon\r\nboat\ncar\nhouse\ntree\n汽车\n".encode("gbk"))
    data = datasets.load(str(own_scenes))
    assert [image_id for _, image_id in data.part("train")] == ["my 照片 1", "train0001"]
    assert data.classes[-1] == "汽车" and len(list(data.annotations("train"))) == 2


def test_empty_boxes_and_boxes_outside_are_left_out_and_counted(own_scenes, capsys):
    before = len(list(datasets.load(str(own_scenes)).annotations("train"))[2].things)
    path = voc.xml_path(own_scenes, "train0002")
    for box in ((9, 9, 8, 12), (9, 9, 12, 8), (-50, 5, -3, 9), (5000, 5, 5010, 9)):
        add(path, "car", *box)
    things = list(datasets.load(str(own_scenes)).annotations("train"))[2].things
    assert len(things) == before and "left out 4 boxes of train" in capsys.readouterr().out


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e999"])
def test_a_box_that_is_no_number_is_a_fault(own_scenes, number):
    add(voc.xml_path(own_scenes, "train0002"), "car", 5, 5, number, 9)
    data = datasets.load(str(own_scenes))
    assert any("train0002.xml: the car has no bndbox of four numbers" in fault for fault in datasets.check(data))
    with pytest.raises(SystemExit, match="the car has no bndbox"):
        list(data.annotations("train"))


def test_a_coco_file_may_not_reach_out_of_its_folder(own_scenes, tmp_path):
    coco = {"images": [{"id": 1, "file_name": "../classes.txt"}], "annotations": [], "categories": []}
    (own_scenes / "classes.txt").write_text("car\n")
    (tmp_path / "evil.json").write_text(json.dumps(coco))
    words = ["--images", str(own_scenes / "JPEGImages"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="no such picture"):
        datasets.main(["--from-coco", str(tmp_path / "evil.json"), *words])


def test_without_lists_the_split_is_drawn_and_stays(own_scenes):
    for part in datasets.PARTS:
        (own_scenes / "ImageSets" / "Main" / f"{part}.txt").unlink()
    one, two = datasets.load(str(own_scenes)), datasets.load(str(own_scenes))
    assert one.parts == two.parts and all(len(one.parts[part]) for part in datasets.PARTS)
    assert len({item for items in one.parts.values() for item in items}) == 12
    assert one.part("train+val") == one.parts["train"] + one.parts["val"]


def make_devkit(root, year, parts):
    """A VOC year as its archives unpack it, with drawn scenes."""
    folder = root / "VOCdevkit" / f"VOC{year}"
    datasets.write_sample(folder, parts)
    ids = [f"{part}{i:04d}" for part in ("train", "val") for i in range(parts[part])]
    voc.write_list(folder, "trainval", ids)
    for path in (folder / "Annotations").glob("*.xml"):  # of VOC's own classes
        path.write_text(
            path.read_text().replace(">balloon<", ">bird<").replace(">house<", ">sofa<").replace(">tree<", ">cow<")
        )
    return folder


def test_the_years_of_voc_by_name(tmp_path):
    make_devkit(tmp_path, 2007, {"train": 3, "val": 2, "test": 4})
    make_devkit(tmp_path, 2012, {"train": 5, "val": 1})
    sizes = {name: {p: len(x) for p, x in datasets.load(name, str(tmp_path)).parts.items()} for name in datasets.YEARS}
    assert sizes["voc2007"] == {"train": 3, "val": 2, "test": 4}
    assert sizes["voc2012"] == {"train": 5, "val": 1}
    assert sizes["voc0712"] == {"train": 8, "val": 3, "test": 4}
    merged = datasets.load("voc0712", str(tmp_path))
    assert merged.classes == datasets.VOC_CLASSES and len(list(merged.annotations("train+val"))) == 11
    with pytest.raises(SystemExit, match="voc2012 has no test part .*not public"):
        datasets.load("voc2012", str(tmp_path)).part("test")


def pack(path, members):
    """A tar of names and bytes -> its MD5."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return utils.hash_of(path, "md5")


def test_an_archive_is_checked_and_unpacked_in_its_folder(tmp_path, monkeypatch):
    listed = "VOC2007/ImageSets/Main/trainval.txt"
    source = tmp_path / "VOCtrainval.tar"
    md5 = pack(source, {f"VOCdevkit/{listed}": b"000005\n", "VOCdevkit/VOC2007/Annotations/000005.xml": b"<a/>"})
    root = tmp_path / "data"
    datasets.get_archive(root, source.as_uri(), md5, "1 kB")
    assert (root / "VOCdevkit" / listed).read_text() == "000005\n" and not list(root.glob(".unpack*"))
    (root / source.name).write_bytes(b"half")
    with pytest.raises(SystemExit, match=r"VOCtrainval.tar: damaged \(not the MD5"):
        datasets.get_archive(root, source.as_uri(), md5, "1 kB")
    with pytest.raises(SystemExit, match=f"could not download other.tar .*put it into .*by hand .MD5 {md5}"):
        datasets.get_archive(root, (tmp_path / "other.tar").as_uri(), md5, "1 kB")
    (root / source.name).unlink()
    with pytest.raises(SystemExit, match="its MD5 is not 0000"):
        datasets.get_archive(root, source.as_uri(), "0000", "1 kB")
    assert {path.name for path in root.iterdir()} == {"VOCdevkit", "VOCtrainval.tar.damaged"}


def test_a_mirror_comes_after_the_official_address_and_before_it_with_mirror_cn(tmp_path, monkeypatch):
    asked = []

    def refuse(url, *words):
        asked.append(url)
        raise OSError("no route to host")

    monkeypatch.setattr(utils, "fetch", refuse)
    monkeypatch.setenv("DATA_MIRROR", "")  # to be put back afterwards
    for words in ([], ["--mirror", "cn"]):
        with pytest.raises(SystemExit, match="could not download VOCtrainval_11-May-2012.tar"):
            datasets.main(["--data", "voc2012", "--data-root", str(tmp_path), *words])
    assert ["bcebos" in url for url in asked] == [False, True, True, False]


def test_an_archive_cannot_write_outside(tmp_path):
    path = tmp_path / "evil.tar"
    pack(path, {"../../escaped.txt": b"gotcha"})
    (tmp_path / "data").mkdir()
    with pytest.raises(SystemExit, match="would land outside"):
        datasets.unpack(path, tmp_path / "data")
    assert not (tmp_path.parent / "escaped.txt").exists() and not list((tmp_path / "data").iterdir())


def test_auto_falls_back_to_the_sample_with_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(datasets, "SAMPLE_SIZES", {"train": 4, "val": 2, "test": 2})
    nowhere = {name: ((tmp_path / "gone.tar").as_uri(), "0", "0 MB") for name in datasets.ARCHIVES}
    monkeypatch.setattr(datasets, "ARCHIVES", nowhere)
    data = datasets.load("auto", str(tmp_path / "data"))
    assert data.name == "sample" and len(data.part("train")) == 4
    assert "built-in SAMPLE" in capsys.readouterr().err
    before = sorted((tmp_path / "data").rglob("*.jpg"))
    assert datasets.load("sample", str(tmp_path / "data")).parts == data.parts  # not drawn again
    assert sorted((tmp_path / "data").rglob("*.jpg")) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "not voc2007, voc2012, voc0712, sample or auto, and there is no folder"),
        (".", "no folder Annotations/"),
    ],
)
def test_what_is_no_data_is_refused_in_one_line(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        datasets.load(name)


def test_describes_and_draws(own_scenes, tmp_path, capsys):
    datasets.main(["--data", str(own_scenes), "--preview", str(tmp_path / "preview.png")])
    assert "6 pictures (0 empty)" in capsys.readouterr().out
    with Image.open(tmp_path / "preview.png") as sheet:
        assert sheet.size == (1280, 512)


def test_names_that_the_usual_font_lacks_are_drawn_with_one_that_has_them(monkeypatch):
    asked = []
    monkeypatch.setattr(utils, "find_font", lambda text: asked.append(text) or utils.font_files()[0])
    blank = Image.new("RGB", (90, 50), "white")
    one, other = (voc.draw_boxes(blank, [(10, 20, 40, 45)], [name], ["red"]) for name in ("狗 0.90", "дом"))
    assert asked == [" .09狗", "дмо"] and np.asarray(one).tobytes() != np.asarray(other).tobytes()
    voc.draw_boxes(blank, [(10, 20, 40, 45)], ["$x$ dog"], ["red"])
    assert len(asked) == 2


def test_boxes_are_drawn_where_they_are():
    blank = Image.new("RGB", (60, 50), "white")
    pixels = np.asarray(voc.draw_boxes(blank, [(10, 20, 40, 45)], ["cat"], ["red"]))
    red = (pixels == (255, 0, 0)).all(2)
    assert red[20:45, 10].all() and red[20:45, 39].all() and red[20, 10:40].all() and red[44, 10:40].all()
    assert not red[46:].any() and not red[:, 41:].any() and (pixels[22:43, 12:38] == 255).all()

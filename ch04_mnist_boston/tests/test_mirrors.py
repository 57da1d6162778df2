"""Downloads: the official address first, then the mirrors; the other way round with --mirror cn."""

import pytest

import datasets
import tables
import utils


@pytest.fixture
def asked(monkeypatch):
    """The addresses that a download asks; none of them answers."""
    addresses = []

    def refuse(url, *words):
        addresses.append(url)
        raise OSError("no route to host")

    monkeypatch.setattr(utils, "fetch", refuse)
    monkeypatch.setenv("DATA_MIRROR", "")  # so that it is put back afterwards
    return addresses


@pytest.mark.parametrize("name", ["mnist", "fashion"])
def test_pictures(name, asked, tmp_path):
    for words in ([], ["--mirror", "cn"]):
        with pytest.raises(SystemExit, match="could not download train-images-idx3-ubyte.gz"):
            datasets.main(["--data", name, "--data-root", str(tmp_path), *words])
    half = len(asked) // 2
    assert [url for url in asked[:half] if "bcebos" in url] == asked[half - 1 : half] and asked[half:] == asked[:half][
        ::-1
    ]


def test_boston(asked, tmp_path):
    for mirror in ("", "cn"):
        utils.os.environ["DATA_MIRROR"] = mirror
        with pytest.raises(SystemExit, match="could not download housing.data"):
            tables.load_boston(str(tmp_path))
    assert ["bcebos" in url for url in asked] == [False, True, True, False]

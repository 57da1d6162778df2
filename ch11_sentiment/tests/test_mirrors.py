"""Downloads: the official address first, then the mirrors; the other way round with --mirror cn."""

import pytest

import datasets
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


def test_weibo(asked, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/")
    for words in ([], ["--mirror", "cn"]):
        with pytest.raises(SystemExit, match="could not download weibo_senti_100k.csv"):
            datasets.main(["--data", "weibo", "--data-root", str(tmp_path), *words])
    assert [url.split("/")[2] for url in asked[:3]] == ["hf-mirror.com", "127.0.0.1:9", "gitee.com"]
    assert asked[3:] == asked[2::-1]

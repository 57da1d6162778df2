"""Downloads: the official address first, then the mirrors; the other way round with --mirror cn."""

import pytest

import datasets
import options
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


def test_cifar10(asked, tmp_path):
    for words in ([], ["--mirror", "cn"]):
        with pytest.raises(SystemExit, match="could not download cifar-10-python.tar.gz"):
            datasets.main(["--data", "cifar10", "--data-root", str(tmp_path), *words])
    assert ["bcebos" in url for url in asked] == [False, True, True, False]


def test_the_flag_may_stand_beside_resume(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(utils, "read_arguments", lambda run: {"epochs": 7, "mirror": None})
    args = options.parse("", ["--resume", str(tmp_path), "--mirror", "cn"])
    assert args.epochs == 7 and args.mirror == "cn"

"""Tables: what is read, what is refused and how it is named, how rows are split, what networks are shown."""

import numpy as np
import pytest
import torch
from sklearn.preprocessing import QuantileTransformer

import sample
import tables
import utils


def test_a_csv_gives_its_numbers_back(csv_file):
    table = tables.load_table(str(csv_file(30)), target="area")
    x, y = sample.make_houses(30)
    assert table.columns == ["rooms", "age", "distance", "crime", "pupils", "river", "price"] and table.target == "area"
    np.testing.assert_allclose(table.y, x[:, 1], atol=1e-4)
    np.testing.assert_allclose(table.x[:, -1], y, atol=1e-4)
    assert tables.load_table(str(csv_file(30)), drop=("river", "age")).columns == [
        "rooms",
        "area",
        "distance",
        "crime",
        "pupils",
    ]


def test_semicolons_a_byte_order_mark_and_blank_lines_are_fine(tmp_path):
    lines = ["\ufeffsize; price", *(f"{i};{i * i}" for i in range(30)), "", ";"]
    (tmp_path / "a.csv").write_text("\r\n".join(lines), "utf-8")
    table = tables.load_table(str(tmp_path / "a.csv"))
    assert table.columns == ["size"] and table.y[-1] == 29 * 29 and len(table.y) == 30


def cell(row, column, value):
    def edit(lines):
        cells = lines[row - 1].split(",")
        cells[column] = value
        lines[row - 1] = ",".join(cells)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (cell(5, 1, "large"), "houses.csv, row 5, column 'area': 'large' is not a number"),
        (cell(9, 3, "NaN"), "houses.csv, row 9, column 'distance': 'NaN' is not a finite number"),
        (cell(9, 3, "-inf"), "row 9, column 'distance': '-inf' is not a finite number"),
        (cell(41, 7, " "), "row 41, column 'price': the cell is empty"),
        (cell(3, 0, "1,2"), "row 3: 9 cells, where row 1 names 8 columns"),
        (cell(1, 2, "rooms"), "row 1 names a column twice: 'rooms'"),
        (lambda lines: lines.pop(0), "row 1 must name the columns"),
        (lambda lines: lines.clear(), "row 1 must name the columns"),
        (lambda lines: lines.__delitem__(slice(11, None)), "10 rows of numbers; at least 20 are needed"),
    ],
)
def test_a_bad_csv_is_refused_in_one_line_that_names_row_and_column(csv_file, edit, message):
    with pytest.raises(SystemExit) as refusal:
        tables.load_table(str(csv_file(40, edit)))
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_missing_column_a_constant_target_and_no_csv_at_all(csv_file, tmp_path):
    path = str(csv_file())
    with pytest.raises(SystemExit, match=r"--target prize: .*no column 'prize'; did you mean price\? there are: rooms"):
        tables.load_table(path, target="prize")
    with pytest.raises(SystemExit, match="--drop B: no column 'B'"):
        tables.load_table(path, drop=("B",))
    (tmp_path / "flat.csv").write_text("a,b\n" + "".join(f"{i},7\n" for i in range(30)))
    with pytest.raises(SystemExit, match="column 'b', the target, has the same value 7 in every row"):
        tables.load_table(str(tmp_path / "flat.csv"))
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe\x00")
    with pytest.raises(SystemExit, match="picture.csv.*save it as UTF-8"):
        tables.load_table(str(tmp_path / "picture.csv"))
    with pytest.raises(SystemExit, match="--data nowhere.csv: not boston, sample or auto, and there is no file"):
        tables.load_table("nowhere.csv")


def test_a_constant_column_counts_as_zero_and_never_divides(csv_file, capsys):
    table = tables.load_table(str(csv_file(40, lambda lines: [cell(i, 4, "0.1")(lines) for i in range(2, 42)])))
    assert "column 'crime' is constant" in capsys.readouterr().out
    for quantile in (False, True):
        shown = tables.Features(table.x, quantile)(table.x + [0, 0, 0, 0, 3, 0, 0])
        assert shown.isfinite().all()
        shown = tables.Features(table.x, quantile)(table.x)
        assert all(column.abs().max() < 1e-6 for column in shown[:, 4::7].T)


# ---- Boston -----------------------------------------------------------------------------------------------------------


def test_without_network_auto_is_the_sample_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "BOSTON_URLS", [(tmp_path / "gone").as_uri()])
    assert tables.load_table("auto", str(tmp_path / "data")).name == "sample"
    said = capsys.readouterr().err
    assert "SAMPLE" in said and "housing.data" in said and tables.BOSTON_MD5 in said
    with pytest.raises(SystemExit, match="could not download"):
        tables.load_table("boston", str(tmp_path / "data"))


def test_a_damaged_housing_data_is_named(tmp_path):
    (tmp_path / "housing.data").write_text("0.1 18 2.3\n")
    with pytest.raises(SystemExit, match="housing.data: damaged"):
        tables.load_table("boston", str(tmp_path))


# ---- folds and features -----------------------------------------------------------------------------------------------


def marks(count):
    return [utils.fingerprint(bytes([i])) for i in range(count)]


def test_each_row_tests_once_in_k_fold_and_leave_one_out():
    for folds in (tables.make_folds(marks(23), "kfold", 5), tables.make_folds(marks(23), "loo")):
        assert sorted(np.concatenate(folds).tolist()) == list(range(23))
    assert len(folds) == 23
    assert [len(test) for test in tables.make_folds(marks(100), "holdout", shuffles=3)] == [20, 20, 20]


def test_folds_are_the_same_each_time_and_differ_between_shuffles():
    first, again = (tables.make_folds(marks(50), "kfold", 5, shuffles=2) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[5])
    with pytest.raises(SystemExit, match="--folds 60: 50 different rows can be cut into 2 to 50 folds"):
        tables.make_folds(marks(50), "kfold", 60)


def test_the_order_of_rows_means_nothing_and_equal_rows_stay_together():
    ours = marks(40) + marks(10)  # ten rows stand twice
    turned = ours[::-1]
    for split in ("kfold", "holdout", "loo"):
        folds, again = tables.make_folds(ours, split, 4), tables.make_folds(turned, split, 4)
        assert [{ours[i] for i in test} for test in folds] == [{turned[i] for i in test} for test in again]
        for test in folds:
            assert not {ours[i] for i in test} & {ours[i] for i in set(range(50)) - set(test.tolist())}


def test_features_are_standardised_and_ranked_as_scikit_learn_does():
    x, _ = sample.make_houses(300)
    features = tables.Features(x, quantile=True)
    shown = features(x)
    np.testing.assert_allclose(shown[:, :7].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(shown[:, :7].std(0, correction=0), 1, atol=1e-5)
    theirs = QuantileTransformer(n_quantiles=101, output_distribution="normal", subsample=None).fit_transform(x)
    inside = (theirs > -2.9) & (theirs < 2.9)  # the ends are clipped elsewhere
    np.testing.assert_allclose(shown[:, 7:].numpy()[inside], theirs[inside], atol=0.02)
    again = tables.Features.from_state_dict(features.state_dict())
    assert torch.equal(again(x), shown)
    assert features(x * 1e9).isfinite().all()


def test_a_column_that_is_large_and_varies_little_keeps_its_digits():
    x = 1e8 + np.arange(50.0)[:, None]
    assert tables.Features(x)(x)[:, 0].diff().min() > 0.05


def test_a_column_of_tiny_or_huge_numbers_is_not_constant():
    rng = np.random.default_rng(0)
    for size in (1e-200, 1e-13, 1e13, 1e200):
        shown = tables.Features(rng.normal(size=(50, 1)) * size)
        assert shown(rng.normal(size=(50, 1)) * size).std() == pytest.approx(1, abs=0.4)

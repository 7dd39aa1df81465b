"""Records, their file, and the Wilson interval."""

import json

import pytest

from advbn_hf import InputError
from advbn_hf.evaluation.records import Record, read_results, write_results
from advbn_hf.evaluation.statistics import wilson_interval

ROW = {
    "model": "advbn",
    "set": "corruptions",
    "shift": "fog",
    "severity": 3,
    "branch": "auxiliary",
    "metric": "accuracy",
    "value": 0.625,
    "n": 2000,
}


def test_records_survive_the_file_in_their_order(tmp_path):
    records = [Record(**ROW | {"set": name}) for name in ("sketch", "clean", "ünïcode")]
    records.append(Record("base", "clean", None, None, None, "mce", 1.25, None))
    write_results(tmp_path / "results.json", records)
    assert read_results(tmp_path / "results.json") == records
    rows = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert rows[0] == ROW | {"set": "sketch"} and list(rows[0]) == list(ROW)
    assert rows[3]["shift"] is None and rows[3]["n"] is None


def test_file_has_a_line_for_each_record(tmp_path):
    write_results(tmp_path / "results.json", [Record(**ROW)] * 3)
    assert len((tmp_path / "results.json").read_text().splitlines()) == 5
    write_results(tmp_path / "none.json", [])
    assert read_results(tmp_path / "none.json") == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_results(path, [Record(**ROW)])
    before = path.read_bytes()

    def no_space(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.replace", no_space)
    with pytest.raises(OSError, match="no space"):
        write_results(path, [])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", ""),
        ("set", None),
        ("set", 3),
        ("metric", " "),
        ("shift", ""),
        ("branch", "both"),
        ("severity", 0),
        ("severity", 1.5),
        ("severity", True),
        ("value", float("nan")),
        ("value", float("inf")),
        ("value", None),
        ("value", "0.5"),
        ("value", True),
        ("value", 62.5),
        ("value", -0.1),
        ("n", 0),
        ("n", "2000"),
    ],
)
def test_a_bad_value_is_named(tmp_path, field, value):
    with pytest.raises(InputError, match=f"field '{field}'"):
        Record(**ROW | {field: value})
    path = tmp_path / "results.json"
    path.write_text(json.dumps([ROW, ROW | {field: value}]))
    with pytest.raises(InputError, match=f"results.json: record 2: field '{field}'") as caught:
        read_results(path)
    assert "\n" not in str(caught.value)


def test_a_missing_or_unknown_field_is_named(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{key: value for key, value in ROW.items() if key != "shift"}]))
    with pytest.raises(InputError, match=r"record 1: .*'shift'"):
        read_results(path)
    path.write_text(json.dumps([ROW | {"extra": 1}]))
    with pytest.raises(InputError, match=r"record 1: .*'extra'.*model, set"):
        read_results(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"[{", "JSON"), (b"\xff\xfe", "JSON"), (b"{}", "list"), (b"[1]", "record 1")],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"results.json.*{message}"):
        read_results(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json"):
        read_results(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998), table I.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_equals_published_values(correct, n, low, high):
    assert wilson_interval(correct / n, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(1 - correct / n, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilson_ends_solve_the_score_equation():
    """The defining property: at either end p0, (p - p0)^2 = z^2 p0 (1 - p0) / n."""
    for value, n in ((0.5, 10), (0.03, 50), (0.661, 2000), (0.999, 1000)):
        for end in wilson_interval(value, n):
            assert (value - end) ** 2 == pytest.approx(1.959963985**2 * end * (1 - end) / n, rel=1e-6)

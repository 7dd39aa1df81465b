"""Any bytes as `results.json`: records that can be written again, or one line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs import many, objects, read_or_refuse, spoilt, values

from advbn_hf.evaluation.records import read_results, write_results

ROW = {"model": "m", "set": "s", "shift": None, "severity": None, "branch": None, "metric": "accuracy", "value": 0.5}
RECORDS = st.lists(
    objects(
        {
            "model": st.text(max_size=4),
            "set": st.text(max_size=4),
            "shift": st.none() | st.just("fog"),
            "severity": st.none() | st.integers(-1, 6),
            "branch": st.sampled_from([None, "clean", "auxiliary", "both"]),
            "metric": st.sampled_from(["accuracy", "mce"]),
            "value": st.floats(),
            "n": st.none() | st.integers(-1, 9),
        }
    ).map(lambda record: ROW | {"n": 1} | record),
    max_size=2,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "results.json"


def to_json(value):
    return json.dumps(value).encode()


@pytest.mark.slow
@many
@given(content=st.one_of(RECORDS.map(to_json), spoilt(RECORDS.map(to_json)), values.map(to_json)))
def test_results(path, content):
    path.write_bytes(content)
    records = read_or_refuse(lambda: read_results(path))
    if records is not None:
        write_results(path, records)
        assert read_results(path) == records


@pytest.mark.parametrize("content", ["[" * 100_000, '[{"a": ' * 50_000, "9" * 5000, '["\\ud800"]', "[1e999]", "\x00"])
def test_files_made_to_hurt(path, content):
    path.write_text(content)
    assert read_or_refuse(lambda: read_results(path)) is None

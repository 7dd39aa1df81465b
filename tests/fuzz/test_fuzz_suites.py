"""Any bytes as a suite: sets that can be run, or one line."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from inputs import many, objects, read_or_refuse, spoilt, values

from advbn_hf.evaluation.suites import load_suite

NAMES = st.sampled_from(["clean", "fog", "../../up", "a\nb"])
ENTRY = {
    "name": NAMES,
    "dataset": st.just("embedded"),
    "split": st.just("test"),
    "layout": st.just("imagenet-c"),
    "shift": st.sampled_from(["fog", "corruptions", ["fog", "snow"]]),
    "severities": st.lists(st.integers(1, 6), max_size=2),
    "size": st.integers(0, 64),
    "seed": st.integers(-1, 3),
    "branch": st.sampled_from(["clean", "auxiliary"]),
    "labels": st.just({"0": "zero"}),
    "mce": st.sampled_from(["alexnet", "baseline"]),
    "clean": NAMES,
}
SUITES = objects(
    {
        "sets": st.lists(objects(ENTRY).map(lambda entry: {"name": "x", "dataset": "y"} | entry), max_size=3),
        "defaults": objects({key: value for key, value in ENTRY.items() if key != "name"}),
        "mean_over": st.lists(NAMES, max_size=2),
    }
)


def to_yaml(value):
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "suite.yaml"


@pytest.mark.slow
@many
@given(content=st.one_of(SUITES.map(to_yaml), spoilt(SUITES.map(to_yaml)), values.map(json.dumps).map(str.encode)))
def test_suite(path, content):
    path.write_bytes(content)
    suite = read_or_refuse(lambda: load_suite(path))
    if suite is not None:
        assert len({entry.name for entry in suite.sets}) == len(suite.sets) > 0
        assert all(entry.title.isprintable() and entry.location["name"] for entry in suite.sets)
        assert set(suite.mean_over) <= {entry.name for entry in suite.sets}

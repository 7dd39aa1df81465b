"""Any file as a checkpoint to convert: a model of finite weights, or one line."""

from io import BytesIO

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import many, read_or_refuse, spoilt
from reference_formula import formula_state_dict
from safetensors.torch import save

from advbn_hf.convert import convert_state_dict, load_checkpoint

STATE = formula_state_dict((1, 1, 1, 1), (1, 1, 1, 2), cut=1, num_classes=2)
KEYS = sorted(STATE)
TENSORS = st.one_of(
    st.lists(st.integers(0, 3), max_size=5).map(torch.ones),
    st.sampled_from(KEYS).map(STATE.get),
    st.sampled_from([torch.float16, torch.float8_e5m2, torch.complex64, torch.bool, torch.int8]).map(
        lambda dtype: torch.ones(2, dtype=dtype)
    ),
    st.sampled_from([torch.tensor([torch.nan]), torch.ones(1).to_sparse(), torch.empty(1, device="meta")]),
)
ANYTHING = TENSORS | st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(KEYS), st.sampled_from(["drop", "rename", "replace", "cast"]), st.text(max_size=5), ANYTHING
    ),
    max_size=3,
)


def edited(edits):
    state = dict(STATE)
    for key, kind, name, value in edits:
        before = state.pop(key, None)
        if kind == "rename":
            state[name] = before
        elif kind == "replace":
            state[key] = value
        elif kind == "cast" and isinstance(before, torch.Tensor) and isinstance(value, torch.Tensor):
            state[key] = before.to(value.dtype)
    return state


def as_bytes(kind):
    if kind == "safetensors":
        return save({key: value.contiguous() for key, value in STATE.items()})
    buffer = BytesIO()
    torch.save({"state_dict": STATE, "epoch": 3}, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


def holds(models):
    for model in models:
        assert all(value.isfinite().all() for value in model.state_dict().values())


def test_what_is_spoilt_below_is_read_as_it_is():
    clean, auxiliary, _ = convert_state_dict(STATE)
    holds([clean, auxiliary])


@pytest.mark.slow
@many
@given(edits=EDITS)
def test_state_dict(edits):
    converted = read_or_refuse(lambda: convert_state_dict(edited(edits)))
    if converted is not None:
        holds(converted[:2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_file(folder, kind):
    path = folder / ("x.safetensors" if kind == "safetensors" else "x.pth")
    whole = as_bytes(kind)
    head = st.just(whole[:3000])  # where the names and shapes are

    @settings(many, max_examples=700)
    @given(content=st.one_of(spoilt(st.just(whole)), st.builds(lambda h: h + whole[3000:], spoilt(head)), st.binary()))
    def check(content):
        path.write_bytes(content)
        model = read_or_refuse(lambda: load_checkpoint(path))
        if model is not None:
            holds([model])

    check()

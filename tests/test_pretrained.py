"""A checkpoint that is saved over another loads as what was saved last; what is not ours stays."""

import pytest
import torch
from builders import models_equal, move_auxiliary_norms, tiny_resnet
from transformers import AutoModelForImageClassification

from advbn_hf import AdvBNConfig, AdvBNForImageClassification

KINDS = {"one file": {}, "many shards": {"max_shard_size": "2KB"}, "few shards": {"max_shard_size": "20KB"}}


def model(seed):
    torch.manual_seed(seed)
    wrapped = AdvBNForImageClassification.from_backbone(tiny_resnet(), AdvBNConfig())
    move_auxiliary_norms(wrapped)
    return wrapped


@pytest.mark.parametrize("last", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_what_was_saved_last_is_loaded_and_nothing_of_the_old_stays(first, last, tmp_path):
    alone, over = tmp_path / "alone", tmp_path / "over"
    model(1).save_pretrained(over, **KINDS[first])
    (over / "notes.txt").write_text("mine")
    (over / "model.fp16.safetensors").write_bytes(b"another variant")
    new = model(2)
    for folder in (alone, over):
        new.save_pretrained(folder, **KINDS[last])
    assert models_equal(AdvBNForImageClassification.from_pretrained(over), new)
    plain = AutoModelForImageClassification.from_pretrained(over, subfolder="auxiliary")
    assert models_equal(plain, new.export("auxiliary"))
    names = {path.relative_to(over).as_posix() for path in over.rglob("*")}
    expected = {path.relative_to(alone).as_posix() for path in alone.rglob("*")}
    assert names == expected | {"notes.txt", "model.fp16.safetensors"}


def test_a_variant_is_saved_beside_the_others(tmp_path):
    one, other = model(1), model(2)
    one.save_pretrained(tmp_path)
    other.save_pretrained(tmp_path, variant="other", max_shard_size="2KB")
    other.save_pretrained(tmp_path, variant="other")
    assert models_equal(AdvBNForImageClassification.from_pretrained(tmp_path), one)
    assert models_equal(AdvBNForImageClassification.from_pretrained(tmp_path, variant="other"), other)
    assert not list(tmp_path.rglob("*-of-*"))

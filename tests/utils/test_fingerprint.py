"""Digests change with what they are of, and with nothing else."""

import hashlib
import os

import torch

from advbn_hf.utils.fingerprint import hash_file, hash_parts, hash_settings, hash_state, hash_tensors


def test_settings_differ_by_keys_values_and_types():
    different = [
        {"a": 1},
        {"a": 2},
        {"b": 1},
        {"a": "1"},
        {"a": [1]},
        {"a": None},
        {"a": True},
        [1, 2],
        [2, 1],
        [[1], 2],
    ]
    assert len({hash_settings(settings) for settings in different}) == len(different)
    assert hash_settings({"a": 1, "b": 2}) == hash_settings({"b": 2, "a": 1})


def test_parts_differ_by_where_they_end():
    different = [[b"ab"], [b"a", b"b"], [b"", b"ab"], [b"b", b"a"], []]
    assert len({hash_parts(iter(parts)) for parts in different}) == len(different)


def test_a_file_has_the_digest_of_its_content(tmp_path):
    (tmp_path / "weights").write_bytes(bytes(range(256)) * 5000)
    assert hash_file(tmp_path / "weights") == hashlib.sha256(bytes(range(256)) * 5000).hexdigest()


def test_a_state_differs_by_name_size_and_time_of_change(tmp_path):
    file, link = tmp_path / "a", tmp_path / "b"
    states = [hash_state([file])]
    file.write_text("1")
    states.append(hash_state([file]))
    os.utime(file, ns=(1, 1))
    states.append(hash_state([file]))
    file.write_text("12")
    os.utime(file, ns=(1, 1))
    states.append(hash_state([file]))
    link.symlink_to("nowhere")
    states.append(hash_state([file, link]))
    assert len(set(states)) == len(states)
    assert hash_state([file, link]) == hash_state(iter([link, str(file)])) == states[-1]


def test_tensors_differ_by_shape_type_value_and_name():
    zeros = torch.zeros(2, 3)
    other = zeros.clone()
    other[1, 2] = -0.0  # equal, but another bit
    different = [
        [zeros], [zeros.T.contiguous()], [zeros.to(torch.int32)], [other], [zeros, zeros], [zeros.bfloat16()],
        {"a": zeros}, {"b": zeros}, {"a": zeros, "b": other}, {"a": other, "b": zeros},
    ]  # fmt: skip
    assert len({hash_tensors(tensors) for tensors in different}) == len(different)


def test_neither_memory_layout_nor_the_order_of_names_counts():
    images = torch.arange(48.0).view(1, 3, 4, 4)
    assert hash_tensors([images]) == hash_tensors([images.contiguous(memory_format=torch.channels_last)])
    assert hash_tensors({"a": images, "b": images[0]}) == hash_tensors({"b": images[0], "a": images})

"""Two processes with models and disks that people have: unused weights, a disk for each process, an error."""

import pytest
import torch
import unused_on_processes
from processes import run_on_two

from advbn_hf.training.checkpoints import last_complete_checkpoint

pytestmark = pytest.mark.slow

UNUSED = {
    "clip": "post_layernorm",
    "siglip": ".head.",
    "spare": "spare",
    "runs": "spare",
    "checkpointed": "post_layernorm",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Of one process and of two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    unused_on_processes.main(str(one))
    run_on_two(unused_on_processes.main, two)
    return one, two


@pytest.fixture(scope="module")
def ranks(folders):
    one, two = folders
    return [torch.load(path) for path in (one / "rank0.pt", two / "rank0.pt", two / "rank1.pt")]


@pytest.mark.parametrize("name", UNUSED)
def test_weights_that_no_forward_uses(ranks, name):
    """Two processes do what one does with the joint batch; what is not used stays."""
    alone, first, second = (kept[name] for kept in ranks)
    unused = {key for key in alone["weights"] if UNUSED[name] in key}
    assert unused
    for key, value in alone["weights"].items():
        start = alone["start"][key]
        assert torch.equal(first["weights"][key], second["weights"][key]), key
        if key in unused:
            assert torch.equal(first["weights"][key], start), key
        change = (value - start).norm()
        assert (first["weights"][key] - value).norm() <= 1e-3 * change + 1e-6, key


def test_a_process_that_shall_not_save_writes_its_random_numbers_alone(folders):
    """Of two that have a disk each; its folder is no checkpoint."""
    first, second = (folders[1] / f"rank{rank}" / "saved" for rank in range(2))
    assert last_complete_checkpoint(first) == str(first / "checkpoint-3")
    assert {path.name for path in second.rglob("*") if path.is_file()} == {"rng_state_1.pth"}
    assert last_complete_checkpoint(second) is None


def test_a_recipe_ends_its_process_group_after_an_error_too(ranks):
    for kept in ranks[1:]:
        assert kept["grouped"]
        assert (kept["code"], kept["ended"]) == (2, True)

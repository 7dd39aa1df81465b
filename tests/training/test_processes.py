"""Two processes do what one does with the joint batch."""

import pytest
import torch
import train_on_processes
from builders import tiny_convnext
from processes import run_on_two

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What one process kept, and what each of two did."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    train_on_processes.main(str(one))
    run_on_two(train_on_processes.main, two)
    return [torch.load(path) for path in (one / "rank0.pt", two / "rank0.pt", two / "rank1.pt")]


@pytest.mark.parametrize("job", train_on_processes.JOBS, ids=str)
def test_two_processes_equal_one_with_the_joint_batch(ranks, job):
    alone, first, second = (kept[job] for kept in ranks)
    assert (alone["world"], first["world"], second["world"]) == (1, 2, 2)
    start = tiny_convnext().state_dict()
    for name, value in alone["weights"].items():
        assert torch.equal(first["weights"][name], second["weights"][name]), name
        path = name.removeprefix("backbone.").replace(".clean.", ".").replace(".auxiliary.", ".")
        change = (value - start[path]).norm()
        assert (first["weights"][name] - value).norm() <= 1e-3 * change + 1e-7, name
    for name in ("eval_clean_accuracy", "eval_auxiliary_accuracy"):
        assert first["metrics"][name] == alone["metrics"][name]
    for name in ("predictions", "predictions_without_a_length"):  # in the order of the rows
        torch.testing.assert_close(first[name], alone[name], rtol=1e-3, atol=1e-3)
        assert torch.equal(first[name], second[name])


@pytest.mark.parametrize("job", train_on_processes.JOBS, ids=str)
def test_random_starts_differ_between_processes_and_are_those_of_one(ranks, job):
    alone, first, second = (kept[job]["starts"] for kept in ranks)
    assert len(alone) == 2 * job[1]
    for start_of_one, *of_two in zip(alone, first, second, strict=True):
        assert torch.equal(torch.cat(of_two, dim=1), start_of_one)
        assert torch.equal(*of_two) == (job[0] == "four_groups")  # which starts at 1 everywhere


def test_early_stopping_and_the_best_model_are_alike_on_both(ranks):
    alone, first, second = (kept["stopped"] for kept in ranks)
    assert alone["steps"] == 3
    assert alone == first == second

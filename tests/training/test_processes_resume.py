"""Two processes with batch norm: uneven batches, the same model on both at the end, resuming from a checkpoint."""

import pytest
import resume_on_processes
import torch
from builders import rows
from processes import run_on_two

from advbn_hf import AdvBNForImageClassification

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    run_on_two(resume_on_processes.main, folder)
    return folder


def test_both_processes_end_with_the_same_weights_and_running_statistics(folder):
    first, second = (torch.load(folder / f"rank{rank}.pt")["full"] for rank in range(2))
    assert (first["world"], second["world"]) == (2, 2)
    assert any("running_var" in name for name in first["weights"])
    torch.testing.assert_close(first["weights"], second["weights"], rtol=0, atol=0)


def test_resuming_from_a_checkpoint_equals_never_stopping(folder):
    for rank in range(2):
        kept = torch.load(folder / f"rank{rank}.pt")
        torch.testing.assert_close(kept["resumed"]["weights"], kept["full"]["weights"], rtol=0, atol=0)


def test_images_of_each_epoch_are_redrawn(folder):
    """Both runs end in the second epoch, which reaches each process's dataset."""
    for rank in range(2):
        kept = torch.load(folder / f"rank{rank}.pt")
        for run in ("full", "resumed"):
            epochs = [epoch for epoch in kept[run]["read_in"] if epoch is not None]
            assert epochs == sorted(epochs)
            assert set(epochs) == {0, 1}


def test_evaluation_on_two_processes_is_that_of_the_saved_model(folder):
    model = AdvBNForImageClassification.from_pretrained(folder / "full" / "checkpoint-5").eval()
    images = rows(8)
    with torch.no_grad():
        output = model(
            torch.stack([row["pixel_values"] for row in images]), torch.tensor([row["labels"] for row in images])
        )
    eval_loss = torch.load(folder / "rank0.pt")["full"]["eval_loss"]
    assert eval_loss == pytest.approx(output.loss.item(), rel=1e-4)


def test_a_stream_is_shared_out_once(folder):
    first, second = (torch.load(folder / f"rank{rank}.pt")["streamed"] for rank in range(2))
    # Three images of each pass for each process, and the batch that Accelerate loads ahead at most.
    one, two = first["seen"], second["seen"]
    assert 6 <= len(one) <= 8 and 6 <= len(two) <= 8
    assert sorted(one[:3] + two[:3]) == sorted(one[3:6] + two[3:6]) == list(range(6))
    torch.testing.assert_close(first["weights"], second["weights"], rtol=0, atol=0)

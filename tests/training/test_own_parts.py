"""A loss, a function that makes the model, or a `compute_loss` of one's own."""

import pytest
import torch
from builders import images_and_labels, rows, tiny_convnext
from parity import arguments, logged, wrap

from advbn_hf import AdvBNTrainer
from advbn_hf.errors import InputError


def test_a_loss_of_ones_own_stands_for_every_cross_entropy(tmp_path):
    """With weights of 1 it is the cross entropy itself; with others, both branches and the ascent follow them."""
    runs, items = {}, []

    def weighted(weights):
        def loss(outputs, labels, num_items_in_batch=None):
            items.append(num_items_in_batch)
            return torch.nn.functional.cross_entropy(outputs.logits, labels, weight=torch.tensor(weights))

        return loss

    for name, function in (
        ("none", None),
        ("ones", weighted([1.0] * 5)),
        ("others", weighted([1.0, 5.0, 0.2, 1.0, 3.0])),
    ):
        trainer = AdvBNTrainer(wrap(), arguments(tmp_path), train_dataset=rows(16), compute_loss_func=function)
        trainer.train()
        runs[name] = trainer
    assert logged(runs["ones"], "loss_after_ascent") == pytest.approx(
        logged(runs["none"], "loss_after_ascent"), rel=1e-5
    )
    assert logged(runs["others"], "clean_loss")[0] != pytest.approx(logged(runs["none"], "clean_loss")[0], rel=1e-3)
    assert 4 in items  # images of the step

    model, (images, labels) = wrap().train(), images_and_labels(4)
    output = model(images, labels, loss_function=lambda logits, _: logits.square().mean())
    torch.testing.assert_close(output.clean_loss, output.logits.square().mean())
    torch.testing.assert_close(output.adversarial_loss, output.auxiliary_logits.square().mean())


def test_a_loss_of_ones_own_is_also_that_of_the_evaluation(tmp_path):
    doubled = lambda outputs, labels, **_: 2 * torch.nn.functional.cross_entropy(outputs.logits, labels)  # noqa: E731
    plain, own = (
        AdvBNTrainer(wrap(), arguments(tmp_path), eval_dataset=rows(6), compute_loss_func=function).evaluate()
        for function in (None, doubled)
    )
    assert own["eval_loss"] == pytest.approx(2 * plain["eval_loss"], rel=1e-5)


def test_a_loss_of_ones_own_and_label_smoothing_contradict_each_other(tmp_path):
    with pytest.raises(InputError, match="label_smoothing_factor"):
        AdvBNTrainer(wrap(), arguments(tmp_path, label_smoothing_factor=0.1), compute_loss_func=lambda *_, **__: 0)


@pytest.mark.parametrize("make", [wrap, lambda: wrap(), lambda trial: wrap(), lambda a=1, b=2: wrap()])
def test_a_model_made_for_each_training(make, tmp_path):
    trainer = AdvBNTrainer(args=arguments(tmp_path, max_steps=1), model_init=make, train_dataset=rows(16))
    weights = []
    for _ in range(2):
        trainer.train()
        weights.append({name: tensor.clone() for name, tensor in trainer.model.state_dict().items()})
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_made_model_is_checked_and_set_up(tmp_path):
    with pytest.raises(InputError, match="model"):
        AdvBNTrainer(args=arguments(tmp_path), model_init=tiny_convnext)
    with pytest.raises(InputError, match="model_init"):
        AdvBNTrainer(wrap(), arguments(tmp_path), model_init=wrap)
    with pytest.raises(InputError, match="num_perturbations"):
        AdvBNTrainer(args=arguments(tmp_path), model_init=lambda: wrap(num_perturbations=64))


def test_a_compute_loss_of_ones_own_may_return_the_models_output(tmp_path):
    class Own(AdvBNTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            outputs = model(**inputs)
            return (outputs.loss, outputs) if return_outputs else outputs.loss

    output = Own(wrap(), arguments(tmp_path)).predict(rows(6))
    assert output.predictions.shape == (6, 5)
    assert "test_clean_accuracy" in output.metrics

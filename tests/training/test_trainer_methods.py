"""Arguments of Trainer and its methods: each does what it does in Trainer, or is refused."""

import copy
import inspect
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from builders import move_auxiliary_norms, rows
from parity import arguments, history, logged, missing_tests, plain_and_ours, train, wrap
from transformers import Trainer, TrainerCallback
from transformers.hyperparameter_search import ALL_HYPERPARAMETER_SEARCH_BACKENDS, OptunaBackend
from transformers.trainer_utils import HPSearchBackend

from advbn_hf import AdvBNTrainer
from advbn_hf.errors import InputError
from advbn_hf.hub.generated_card import CardArguments

HERE = "training/test_trainer_methods.py::"
OWN = "training/test_own_parts.py::"
IN_PARITY = HERE + "test_a_part_does_what_it_does_in_trainer"
CARD = "hub/test_generated_card.py::test_what_a_person_says_is_in_the_card_from_then_on"
SEARCH = HERE + "test_hyperparameters_are_searched"
PUSH = "hub/test_hub_training.py::test_what_a_push_is_given"
# Every argument, by method, and the test that shows what it does.
METHODS = {
    "__init__": {
        "model": "test_wrong_parts.py::test_a_classifier_that_is_not_wrapped",
        "args": "test_wrong_parts.py::test_arguments_of_transformers",
        "data_collator": IN_PARITY,
        "train_dataset": IN_PARITY,
        "eval_dataset": IN_PARITY,
        "processing_class": "test_trainer.py::test_best_model_early_stopping_and_processor",
        "model_init": OWN + "test_a_model_made_for_each_training",
        "compute_loss_func": OWN + "test_a_loss_of_ones_own_stands_for_every_cross_entropy",
        "compute_metrics": "test_trainer.py::test_own_metrics_and_preprocessing_see_each_branch",
        "callbacks": IN_PARITY,
        "optimizers": IN_PARITY,
        "optimizer_cls_and_kwargs": IN_PARITY,
        "preprocess_logits_for_metrics": "test_trainer.py::test_own_metrics_and_preprocessing_see_each_branch",
    },
    "train": {
        "resume_from_checkpoint": "training/test_trainer_habits.py::test_resuming_says_what_to_do_in_python",
        "trial": SEARCH,
        "ignore_keys_for_eval": HERE + "test_ignored_keys_while_training",
    },
    "evaluate": {
        "eval_dataset": HERE + "test_evaluations_are_called_and_numbered_as_in_trainer",
        "ignore_keys": HERE + "test_ignored_keys",
        "metric_key_prefix": HERE + "test_evaluations_are_called_and_numbered_as_in_trainer",
    },
    "predict": {
        "test_dataset": HERE + "test_evaluations_are_called_and_numbered_as_in_trainer",
        "ignore_keys": HERE + "test_ignored_keys",
        "metric_key_prefix": HERE + "test_evaluations_are_called_and_numbered_as_in_trainer",
    },
    "save_model": {
        "output_dir": HERE + "test_a_model_is_saved_where_it_is_asked_for",
        "_internal_call": HERE + "test_a_model_is_saved_where_it_is_asked_for",
    },
    "hyperparameter_search": dict.fromkeys(
        ("hp_space", "compute_objective", "n_trials", "direction", "backend", "hp_name", "kwargs"), SEARCH
    ),
    "push_to_hub": {
        "commit_message": PUSH,
        "blocking": PUSH,
        "token": PUSH,
        "revision": PUSH,
        "private": PUSH,
        "kwargs": CARD,
    },
    "create_model_card": dict.fromkeys(inspect.signature(CardArguments).parameters, CARD),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_argument_has_its_place(method):
    """An argument that another version of Transformers adds is named here."""
    theirs = inspect.signature(getattr(Trainer, method)).parameters.keys() - {"self"}
    assert theirs - METHODS[method].keys() == set()
    ours = inspect.signature(getattr(AdvBNTrainer, method)).parameters
    assert any(one.kind is one.VAR_KEYWORD for one in ours.values()) or theirs <= ours.keys()
    assert missing_tests(METHODS[method].values()) == []


class StopsAtTwo(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 2


def brighter(batch):
    return {
        "pixel_values": torch.stack([row["pixel_values"] for row in batch]) + 1,
        "labels": torch.tensor([row["labels"] for row in batch]),
    }


class Passing(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(rows(12, seed=3) * 2)


def own_optimizer(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)


PARTS = {
    "data_collator": lambda model: brighter,
    "train_dataset": lambda model: Passing(),
    "eval_dataset": lambda model: {"some": rows(5), "others": rows(6, seed=1)},
    "callbacks": lambda model: [StopsAtTwo()],
    "optimizers": own_optimizer,
    "optimizer_cls_and_kwargs": lambda model: (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
}
SHORT = {"max_steps": 3, "eval_strategy": "epoch"}


@pytest.fixture(scope="module")
def without_parts(tmp_path_factory):
    """What plain Trainer logs where none of them is given."""
    trainer, _ = plain_and_ours(tmp_path_factory.mktemp("plain"), **SHORT)
    trainer.train()
    return history(trainer)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_does_what_it_does_in_trainer(part, tmp_path, without_parts):
    plain, ours = plain_and_ours(tmp_path, given=lambda model: {part: PARTS[part](model)}, **SHORT)
    train(plain, ours)
    assert history(plain) != without_parts
    for one, other in zip(history(ours), history(plain), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize("option", [{"lr_decay_epochs": 1}, {"decay_norms_and_biases": True}])
def test_a_given_optimizer_and_options_of_another_contradict_each_other(option, tmp_path):
    with pytest.raises(InputError, match=next(iter(option))):
        AdvBNTrainer(model := wrap(), arguments(tmp_path, **option), optimizers=own_optimizer(model))


def test_evaluations_are_called_and_numbered_as_in_trainer(tmp_path):
    plain, ours = plain_and_ours(tmp_path)
    several = {"some": rows(5), "others": rows(6, seed=1)}
    for given in ({}, {"eval_dataset": rows(5)}, {"eval_dataset": several}, {"metric_key_prefix": "final"}):
        expected, metrics = plain.evaluate(**given), ours.evaluate(**given)
        losses = {name: value for name, value in expected.items() if name.endswith("_loss")}
        assert {name: metrics[name] for name in losses} == pytest.approx(losses, rel=1e-4)
        assert expected.keys() <= metrics.keys()
    for given in ({}, {"metric_key_prefix": "final"}):
        expected, output = plain.predict(rows(5), **given), ours.predict(rows(5), **given)
        assert expected.metrics.keys() <= output.metrics.keys()
        torch.testing.assert_close(torch.tensor(output.predictions), torch.tensor(expected.predictions))
        assert (output.label_ids == expected.label_ids).all()


@pytest.mark.parametrize("prefix", ["eval", "test"])
def test_predictions_in_batches(prefix, tmp_path):
    """As plain Trainer hands them to metrics; ours are those of a branch."""
    ours = AdvBNTrainer(wrap(), arguments(tmp_path, eval_do_concat_batches=False, per_device_eval_batch_size=4))
    joined = AdvBNTrainer(ours.model, arguments(tmp_path, per_device_eval_batch_size=4))
    output, expected = (one.predict(rows(6), metric_key_prefix=prefix) for one in (ours, joined))
    assert [len(batch) for batch in output.predictions] == [4, 2]
    assert (expected.predictions[4:] == output.predictions[1]).all()
    for branch in ("clean", "auxiliary"):
        assert output.metrics[f"{prefix}_{branch}_accuracy"] == expected.metrics[f"{prefix}_{branch}_accuracy"]


def test_a_model_is_saved_where_it_is_asked_for(tmp_path):
    trainer = AdvBNTrainer(wrap(), arguments(tmp_path / "run"))
    trainer.save_model()
    trainer.save_model(str(tmp_path / "other"), _internal_call=True)
    for folder in ("run", "other"):
        assert (tmp_path / folder / "auxiliary" / "model.safetensors").is_file()


class Trial(SimpleNamespace):
    """As optuna gives them."""


class Search(OptunaBackend):
    """Tries what it is asked to in turn."""

    is_available = staticmethod(lambda: True)

    def run(self, trainer, n_trials, direction, **kwargs):
        tried = []
        for number in range(n_trials):
            trainer.train(trial=Trial(number=number, params={}))
            tried.append(trainer.compute_objective(trainer.evaluate()))
        return tried, direction, kwargs


def copier(model):
    return lambda: copy.deepcopy(model)


def test_hyperparameters_are_searched(tmp_path, monkeypatch):
    """Also seeds and batch sizes, which a search tries by default."""
    optuna = ModuleType("optuna")
    optuna.trial = SimpleNamespace(BaseTrial=Trial)
    monkeypatch.setitem(sys.modules, "optuna", optuna)
    monkeypatch.setattr("transformers.integrations.integration_utils.is_optuna_available", lambda: True)
    monkeypatch.setitem(ALL_HYPERPARAMETER_SEARCH_BACKENDS, HPSearchBackend.OPTUNA, Search)
    spaces = [{"seed": 1, "learning_rate": 0.05}, {"seed": 2, "per_device_train_batch_size": 6}]
    searched = []
    for trainer in plain_and_ours(tmp_path, max_steps=2, save_strategy="steps", save_steps=2):
        again = type(trainer)(
            args=trainer.args,
            model_init=copier(trainer.model),
            train_dataset=rows(18),
            eval_dataset=rows(7),
        )
        found, direction, others = again.hyperparameter_search(
            hp_space=lambda trial: spaces[trial.number],
            compute_objective=lambda metrics: metrics["eval_loss"],
            n_trials=2,
            direction="minimize",
            backend="optuna",
            hp_name=lambda trial: f"mine-{trial.number}",
            timeout=9,
        )
        assert (direction, others) == ("minimize", {"timeout": 9})
        searched.append(found)
        assert {path.name for path in Path(again.args.output_dir).glob("mine-*/checkpoint-2")} == {"checkpoint-2"}
        again.train()  # with the arguments of the last trial
        assert again.args.seed == 2
    assert searched[1] == pytest.approx(searched[0], rel=1e-4)
    assert searched[0][0] != searched[0][1]


def test_ignored_keys_while_training(tmp_path):
    settings = arguments(tmp_path, max_steps=1, eval_strategy="steps", eval_steps=1)
    trainer = AdvBNTrainer(wrap(), settings, train_dataset=rows(8), eval_dataset=rows(4))
    trainer.train(ignore_keys_for_eval=["auxiliary_logits"])
    assert logged(trainer, "eval_clean_accuracy")
    assert not logged(trainer, "eval_auxiliary_accuracy")


@pytest.mark.parametrize(
    ("ignored", "branches"),
    [([], {"clean", "auxiliary"}), (["auxiliary_logits"], {"clean"}), (["logits"], {"auxiliary"}),
     (["logits", "auxiliary_logits"], set())],
)  # fmt: skip
@pytest.mark.parametrize("count", [2, 6])
def test_ignored_keys(ignored, branches, count, tmp_path):
    model = wrap()
    move_auxiliary_norms(model)
    trainer = AdvBNTrainer(model, arguments(tmp_path), eval_dataset=rows(count))
    metrics = trainer.evaluate(ignore_keys=ignored)
    assert {name.split("_")[1] for name in metrics if name.endswith("_accuracy")} == branches
    predictions = trainer.predict(rows(count), ignore_keys=ignored).predictions
    if branches:
        expected = model.eval()(torch.stack([row["pixel_values"] for row in rows(count)]), branch="both")
        logits = expected.logits if "clean" in branches else expected.auxiliary_logits
        torch.testing.assert_close(torch.tensor(predictions), logits.detach(), rtol=1e-4, atol=1e-4)


def test_metrics_that_were_taken_away_and_losses_alone(tmp_path):
    trainer = AdvBNTrainer(wrap(), arguments(tmp_path), eval_dataset=rows(6))
    trainer.compute_metrics = None
    assert "eval_clean_accuracy" not in trainer.evaluate()
    unlabelled = [{"pixel_values": row["pixel_values"]} for row in rows(6)]
    output = AdvBNTrainer(wrap(), arguments(tmp_path, prediction_loss_only=True)).predict(unlabelled)
    assert output.predictions is None

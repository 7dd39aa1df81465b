"""The advice to perturb less, where the auxiliary branch fails on clean images."""

import itertools

import finetune
import pytest
from trainers import trainer_of

from advbn_hf import AdvBNConfig
from advbn_hf.evaluation.records import Record
from advbn_hf.evaluation.suites import SetEntry, Suite
from advbn_hf.reporting.suite_report import SuiteReport
from advbn_hf.training.strength import advice_on_strength
from advbn_hf.utils.advice import on_command_line


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr("advbn_hf.training.evaluation.logger.warning", said.append)
    return said


def trainer_with(folder, clean, auxiliary, name="accuracy", **settings):
    """A trainer whose evaluations find these accuracies."""
    trainer = trainer_of(folder, **settings)
    found = itertools.cycle([{name: clean}, {name: auxiliary}])
    trainer.compute_metrics = lambda prediction: next(found)
    return trainer


@pytest.mark.parametrize(
    ("clean", "auxiliary", "given"),
    [
        (0.9, 0.89, False),
        (0.9, 0.73, False),
        (0.9, 0.71, True),
        (0.2, 0.02, True),
        (0.0, 0.0, False),
        (0.5, 0.9, False),
    ],
)
def test_advice_is_given_where_the_auxiliary_branch_fails(clean, auxiliary, given):
    assert (advice_on_strength(clean, auxiliary, AdvBNConfig()) is not None) == given


def test_advice_halves_the_settings_of_the_model_as_its_user_writes_them():
    config = AdvBNConfig(epsilon=1.1, step_size=0.3)
    assert "perturbation: epsilon=0.55, step_size=0.15" in advice_on_strength(0.9, 0.1, config)
    with on_command_line():
        assert "--epsilon 0.55 --step_size 0.15" in advice_on_strength(0.9, 0.1, config)


def test_the_trainer_warns_once_it_is_trained(tmp_path, warnings):
    trainer = trainer_with(tmp_path, 0.9, 0.4, eval_strategy="steps", eval_steps=1)
    trainer.train()
    assert len(trainer.state.log_history) > 4 and len(warnings) == 1
    assert "40.0%" in warnings[0] and "epsilon=1," in warnings[0]
    trainer.evaluate(metric_key_prefix="test")
    assert len(warnings) == 2


@pytest.mark.parametrize("settings", [{"auxiliary": 0.8}, {"auxiliary": 0.4, "name": "f1"}])
def test_the_trainer_does_not_warn_otherwise(tmp_path, warnings, settings):
    trainer = trainer_with(tmp_path, 0.9, **settings)
    trainer.train()
    trainer.evaluate()
    assert not warnings


@pytest.mark.parametrize(("auxiliary", "given"), [(0.4, True), (0.85, False), (None, False)])
def test_the_recipe_advises_by_the_first_set(auxiliary, given):
    values = {("likeness", "clean"): 0.9, ("other", "clean"): 0.9, ("other", "auxiliary"): 0.1}
    if auxiliary is not None:
        values["likeness", "auxiliary"] = auxiliary
    records = [Record("advbn", name, None, None, of, "accuracy", value, 10) for (name, of), value in values.items()]
    records += [Record("baseline", "likeness", None, None, None, "accuracy", 0.9, 10)]
    results = SuiteReport(records, Suite((SetEntry("likeness", dataset="me/birds"), SetEntry("other"))))
    advice = finetune.strength_advice(results, AdvBNConfig())
    assert (advice is not None) == given
    assert not given or advice.startswith("likeness: ")

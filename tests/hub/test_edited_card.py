"""A card that somebody has written or edited stays, on disk and on the Hub; any other is rendered again."""

import shutil

import pytest
from builders import models_equal, move_auxiliary_norms, tiny_resnet
from cards import HUB, on_hub, row, wrapped, write_on_hub
from trainers import trainer_of
from transformers import TrainerCallback

from advbn_hf.evaluation.records import Record
from advbn_hf.hub import planned_changes
from advbn_hf.hub.generated_card import is_generated
from advbn_hf.reporting.model_card import render_card, save_card
from advbn_hf.training.checkpoints import damage

BY_HAND = "---\ntags: [advbn]\n---\n# Mine\n\nLoaded from path/to/this/folder.\n"
EDITED = "\nWe use it for birds.\n"


@pytest.mark.parametrize("text", [BY_HAND, None], ids=["by hand", "edited"])
def test_somebodys_card_stays_in_its_folder(client, tmp_path, monkeypatch, text):
    trainer = trainer_of(tmp_path, **HUB)
    trainer.save_model()
    card = tmp_path / "README.md"
    card.write_text(text or card.read_text() + EDITED)
    before = card.read_text()
    trainer.train()
    trainer.save_model()
    warnings = []
    monkeypatch.setattr("advbn_hf.training.card.logger.warning", warnings.append)
    trainer.push_to_hub(license="mit")
    wrapped(epsilon=0.5).save_pretrained(tmp_path)
    assert card.read_text() == before
    assert on_hub(client) == before.replace("path/to/this/folder", "me/digits")
    assert len(warnings) == 1
    assert "README.md" in warnings[0]


@pytest.mark.parametrize("text", [BY_HAND, None], ids=["by hand", "edited"])
def test_somebodys_card_stays_on_the_hub(client, tmp_path, text):
    model = wrapped()
    model.push_to_hub("me/digits")
    write_on_hub(client, text or on_hub(client) + EDITED)
    before = on_hub(client)
    move_auxiliary_norms(model)
    model.push_to_hub("me/digits", commit_message="other weights")
    model.save_pretrained(tmp_path)
    assert planned_changes(tmp_path, "me/digits") == []
    trainer = trainer_of(tmp_path / "run", **HUB)
    trainer.train()
    trainer.push_to_hub()
    assert on_hub(client) == before
    (tmp_path / "run" / "README.md").write_text(BY_HAND)
    trainer.push_to_hub()
    assert on_hub(client) == BY_HAND.replace("path/to/this/folder", "me/digits")


def test_a_card_that_nobody_edited_is_rendered_again(client, tmp_path):
    wrapped(epsilon=0.5).push_to_hub("me/digits")
    assert is_generated(on_hub(client))
    assert not is_generated(on_hub(client).replace("0.5", "0.6"))
    wrapped(epsilon=0.75).push_to_hub("me/digits")
    assert row(on_hub(client), "epsilon") == ["0.75"]
    wrapped(epsilon=0.5).save_pretrained(tmp_path)
    card = tmp_path / "README.md"
    card.write_bytes(card.read_bytes().replace(b"\n", b"\r\n"))  # as git does on Windows
    wrapped(epsilon=0.25).save_pretrained(tmp_path)
    assert row(card.read_text(), "epsilon") == ["0.25"]


def test_the_full_card_stays(client, tmp_path):
    trainer = trainer_of(tmp_path, **HUB)
    trainer.train()
    trainer.save_model()
    full = render_card(
        [Record("advbn", "sketch", None, None, "clean", "accuracy", 0.5, 100)],
        model_name="digits",
        base_model=None,
        dataset="me/digits",
        advbn_config={},
        training={},
        command=[],
        versions={},
    )
    save_card(full, tmp_path)
    trainer.push_to_hub()
    assert on_hub(client) == str(full).replace("path/to/this/folder", "me/digits")
    wrapped().push_to_hub("me/digits")
    assert "| sketch |" in on_hub(client)


class EditsOnHub(TrainerCallback):
    """Once the first checkpoint is on the Hub, somebody edits its card there."""

    def __init__(self, client):
        self.client, self.seen = client, []

    def on_save(self, args, state, control, **kwargs):
        self.trainer.push_in_progress.wait_until_done()
        self.seen.append(on_hub(self.client))
        if state.global_step == 4:
            write_on_hub(self.client, self.seen[-1] + EDITED)


def test_checkpoints_on_their_way_have_cards_until_somebody_edits_one(client, tmp_path):
    edits = EditsOnHub(client)
    saving = {"save_strategy": "steps", "save_steps": 2, "hub_strategy": "every_save", "max_steps": 6}
    edits.trainer = trainer = trainer_of(tmp_path, callbacks=[edits], **HUB, **saving)
    trainer.train()
    trainer.push_to_hub()
    assert [row(card, "steps") for card in edits.seen] == [["2"], ["4"], ["4"]]
    assert edits.seen[2] == edits.seen[1] + EDITED == on_hub(client)
    assert "# digits\n" in edits.seen[0]


def test_a_resumed_run_renders_its_card_again_and_its_checkpoints_cards_may_be_edited(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    first = trainer_of(tmp_path / "run", **settings)
    first.train()
    first.save_model()
    shutil.rmtree(tmp_path / "run" / "checkpoint-4")
    edited = tmp_path / "run" / "checkpoint-2" / "README.md"
    edited.write_text(edited.read_text() + EDITED)
    assert damage(edited.parent) is None
    second = trainer_of(tmp_path / "run", model=tiny_resnet(seed=1), **settings | {"weight_decay": 0.0})
    second.train(resume_from_checkpoint=True)
    second.evaluate()
    second.save_model()
    card = (tmp_path / "run" / "README.md").read_text()
    assert models_equal(first.model, second.model)
    assert row(card, "steps") == ["4"]
    assert row(card, "eval: accuracy")
    assert edited.read_text().endswith(EDITED)

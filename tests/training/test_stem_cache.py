"""Training on stored stem features is training on the images, bit for bit, and only what is needed is stored."""

import pytest
import torch
from builders import models_equal, rows, tiny_convnext, tiny_resnet, tiny_vit
from tiny_models import TinyClassifier
from torch import nn

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments, InputError
from advbn_hf.training.stem_cache import cached_stem_features

MODELS = {"resnet": tiny_resnet, "convnext": tiny_convnext, "vit": tiny_vit}


class Skips(TinyClassifier):
    """Its tail reads the images and a feature map of the stem besides that of the insertion module."""

    def __init__(self):
        super().__init__()
        self.block = nn.Conv2d(4, 4, 3, padding=1)
        self.unread = nn.Conv2d(3, 4, 1)

    def forward(self, pixel_values):
        self.unread(pixel_values)
        skip = self.conv(pixel_values)
        return self.classify(self.block(skip) + skip + pixel_values.mean(1, keepdim=True))


def training(model, dataset, folder, **settings):
    args = AdvBNTrainingArguments(
        str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=8,
        optim="sgd",
        learning_rate=0.1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=1,
        **settings,
    )
    trainer = AdvBNTrainer(model, args, train_dataset=dataset, data_collator=collate, eval_dataset=rows(6))
    trainer.train()
    return trainer


def collate(batch):
    kept = [row for row in batch if row["pixel_values"] is not None]
    return {
        "pixel_values": torch.stack([row["pixel_values"] for row in kept]),
        "labels": torch.tensor([row["labels"] for row in kept]),
    }


def wrapped(make, **settings):
    torch.manual_seed(0)
    return AdvBNForImageClassification.from_backbone(make(), AdvBNConfig(**settings))


@pytest.fixture
def one_thread():
    """With several, the sums of a matrix product, so a ViT's features, depend on the size of the batch."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {}) for name in MODELS),
        *((name, {"bf16": True}) for name in MODELS),
        ("vit", {"dataloader_num_workers": 1}),
    ],
    ids=str,
)
def test_training_is_bit_identical(name, settings, tmp_path, one_thread):
    dataset = rows(20)  # the last batch of an epoch is a half one
    dataset[3]["pixel_values"] = None
    plain = training(wrapped(MODELS[name]), dataset, tmp_path, **settings)
    autocast = {"autocast": lambda: torch.autocast("cpu", torch.bfloat16)} if "bf16" in settings else {}
    model = wrapped(MODELS[name])
    with cached_stem_features(model, dataset, tmp_path / "features", batch_size=8, **autocast) as features:
        cached = training(model, features, tmp_path, **settings)
    assert models_equal(plain.model, cached.model)
    assert not models_equal(plain.model, wrapped(MODELS[name]))
    losses = [[log["loss"] for log in run.state.log_history if "loss" in log] for run in (plain, cached)]
    assert losses[0] == losses[1]
    assert cached.evaluate()["eval_clean_accuracy"] == plain.evaluate()["eval_clean_accuracy"]
    assert not (tmp_path / "features").exists()


def test_the_stem_does_not_run_again(tmp_path):
    model = wrapped(tiny_resnet)
    with cached_stem_features(model, rows(16), tmp_path / "features", batch_size=8) as features:
        runs = []
        model.backbone.resnet.embedder.embedder.register_forward_hook(lambda *_: runs.append(1))
        training(model, features, tmp_path)
    assert not runs


def test_only_what_the_tail_reads_is_stored(tmp_path):
    with cached_stem_features(wrapped(tiny_resnet), rows(16), tmp_path / "features", batch_size=8):
        sizes = {path.name: path.stat().st_size for path in (tmp_path / "features").iterdir()}
    assert sorted(sizes.values()) == [16 * 8, 16 * 8 * 8 * 8 * 4]  # labels; features (8, 8, 8)


def test_images_and_skips_that_the_tail_reads_are_stored(tmp_path):
    dataset = rows(16, size=16)
    plain = training(wrapped(Skips, insert_after="block"), dataset, tmp_path)
    model = wrapped(Skips, insert_after="block")
    with cached_stem_features(model, dataset, tmp_path / "features", batch_size=8) as features:
        cached = training(model, features, tmp_path)
        assert len(list((tmp_path / "features").iterdir())) == 4  # images, skip, features, labels
    assert models_equal(plain.model, cached.model)


def test_random_numbers_stay_as_they_were(tmp_path):
    model = wrapped(tiny_resnet)
    before = torch.get_rng_state()
    with cached_stem_features(model, rows(16), tmp_path / "features", batch_size=8):
        assert torch.equal(torch.get_rng_state(), before)


def differing():
    dataset = rows(8)
    dataset[5]["pixel_values"] = dataset[5]["pixel_values"][:, :16, :16]
    return dataset


def unreadable():
    return [{"pixel_values": None, "labels": 0}] * 4


@pytest.mark.parametrize(
    ("settings", "dataset", "batch_size", "message"),
    [
        ({"freeze_stem": False}, lambda: rows(8), 8, "the stem learns"),
        ({}, lambda: iter(rows(8)), 8, "a stream has no length"),
        ({}, differing, 8, "images have different sizes"),
        ({}, differing, 1, "images 5 to 5"),
        ({}, unreadable, 4, "none of the images can be decoded"),
    ],
)
def test_what_cannot_be_cached_is_said_in_one_line(settings, dataset, batch_size, message, tmp_path):
    folder = tmp_path / "features"
    caching = cached_stem_features(wrapped(tiny_resnet, **settings), dataset(), folder, batch_size=batch_size)
    with pytest.raises(InputError, match=message) as raised, caching:
        pass
    assert "\n" not in str(raised.value)
    assert not folder.exists()


def test_room_is_taken_before_the_first_image(tmp_path):
    """A disk that fills up later would end the process without a word."""
    folder, taken = tmp_path / "features", []

    class Rows(list):
        def __getitem__(self, index):
            taken.append([path.stat().st_blocks * 512 >= path.stat().st_size for path in folder.glob("*.bin")])
            return super().__getitem__(index)

    with cached_stem_features(wrapped(tiny_resnet), Rows(rows(16)), folder, batch_size=8):
        assert taken[1:] == [[True, True]] * 16


def test_no_room_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with (
        pytest.raises(InputError, match=r"needs .* GB"),
        cached_stem_features(wrapped(tiny_resnet), rows(8), tmp_path / "features", batch_size=8),
    ):
        pass


def test_a_batch_without_an_image(tmp_path):
    dataset = rows(8)
    dataset[2]["pixel_values"] = None
    with cached_stem_features(wrapped(tiny_resnet), dataset, tmp_path / "features", batch_size=4) as features:
        assert features.collate([1, 2])["labels"].tolist() == [dataset[1]["labels"]]
        with pytest.raises(InputError, match="can be decoded"):
            features.collate([2])

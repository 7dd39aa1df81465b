"""Models that PEFT has adapted: what trains, and that what is exported and saved needs no PEFT."""

import json

import pytest
import torch
from builders import images_and_labels, models_equal, move_auxiliary_norms, rows, tiny_resnet, tiny_vit
from transformers import AutoModelForImageClassification

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments, InputError
from advbn_hf.data.images import collate
from advbn_hf.modeling import PlainForImageClassification

peft = pytest.importorskip("peft")

PICTURES, LABELS = images_and_labels()
ON_VIT = {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["classifier"]}
ON_RESNET = {"target_modules": ["convolution"], "modules_to_save": ["classifier"]}
NORMS_TOO = {**ON_VIT, "modules_to_save": ["classifier", "layernorm_before", "layernorm_after"]}


def adapted(model, injected, settings=None):
    """A model with low-rank adapters, within a `PeftModel` or injected into the model itself."""
    config = peft.LoraConfig(r=2, **(settings or ON_VIT))
    if not injected:
        return peft.get_peft_model(model, config)
    try:
        model.add_adapter(config)
    except ValueError as error:  # Transformers 5.24 came before the PEFT that it asks for
        if "version of PEFT" not in str(error):
            raise
        pytest.skip(str(error))
    return model


def steps(model, number=2):
    """Names of the weights that some steps change; the first step leaves LoRA's A as it is, since B is zero."""
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    model.train()
    for _ in range(number):
        optimizer.zero_grad()
        model(pixel_values=PICTURES, labels=LABELS).loss.backward()
        optimizer.step()
    return {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}


def in_adapters(model):
    return {name for name, _ in model.named_parameters() if "lora_" in name or "modules_to_save" in name}


@pytest.mark.parametrize("injected", [False, True])
@pytest.mark.parametrize("freeze_stem", [True, False])
def test_adapters_alone_train(injected, freeze_stem):
    backbone = adapted(tiny_vit(initializer_range=0.2), injected)
    model = AdvBNForImageClassification.from_backbone(backbone, AdvBNConfig("auto", freeze_stem=freeze_stem))
    assert model.advbn_config.insert_after == "vit.layers.0"
    in_stem = {name for name in in_adapters(model) if ".layers.0." in name}
    changed = steps(model)
    assert in_stem
    assert changed == in_adapters(model) - (in_stem if freeze_stem else set())


def test_norms_train_where_peft_saves_them():
    model = AdvBNForImageClassification.from_backbone(adapted(tiny_vit(), True, NORMS_TOO), AdvBNConfig("auto"))
    changed = {name for name in steps(model) if "layernorm" in name}
    assert changed == {name for name in in_adapters(model) if "layernorm" in name and ".layers.0." not in name}
    assert any(".auxiliary." in name for name in changed)


@pytest.mark.parametrize("wrapper", [AdvBNForImageClassification, PlainForImageClassification])
@pytest.mark.parametrize(
    ("make", "settings", "injected"),
    [
        (tiny_vit, ON_VIT, False),
        (tiny_vit, NORMS_TOO, True),
        (tiny_resnet, ON_RESNET, True),
        (tiny_resnet, {**ON_RESNET, "modules_to_save": ["classifier", "normalization"]}, False),
    ],
)
def test_exported_merged_while_training_goes_on(tmp_path, wrapper, make, settings, injected):
    plain = make()
    model = wrapper.from_backbone(adapted(make(), injected, settings))
    steps(model)
    move_auxiliary_norms(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} - {"README.md"} == {
        *("config.json", "model.safetensors", "auxiliary", "advbn_config.json")
    }
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert steps(model, 1)
    model.load_state_dict(before)
    for branch, subfolder in (("clean", ""), ("auxiliary", "auxiliary")):
        loaded = AutoModelForImageClassification.from_pretrained(tmp_path, subfolder=subfolder)
        assert type(loaded) is type(plain)
        assert loaded.state_dict().keys() == plain.state_dict().keys()
        assert models_equal(loaded, model.export(branch))
        assert not models_equal(loaded, plain)
        with torch.no_grad():
            expected = model.eval()(PICTURES, branch=branch).logits
            torch.testing.assert_close(loaded(PICTURES).logits, expected, atol=1e-5, rtol=1e-4)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [type(plain).__name__]
    AdvBNForImageClassification.from_pretrained(tmp_path)


ON = {"target_modules": ["q_proj", "v_proj"]}
METHODS = {
    "LoRA of two": peft.LoraConfig(r=2, **ON),
    "DoRA": peft.LoraConfig(r=2, use_dora=True, **ON),
    "LoHa": peft.LoHaConfig(r=2, **ON),
    "LoKr": peft.LoKrConfig(r=2, **ON),
    "IA3": peft.IA3Config(feedforward_modules=[], **ON),
    "OFT": peft.OFTConfig(r=0, oft_block_size=4, **ON),
    "HRA": peft.HRAConfig(r=2, **ON),
    "VeRA": peft.VeraConfig(r=4, **ON),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_kind_of_adapter_trains_and_is_merged(name):
    backbone = peft.get_peft_model(tiny_vit(initializer_range=0.2), METHODS[name])
    if name == "LoRA of two":
        backbone.add_adapter("second", peft.LoraConfig(r=3, **ON))
        backbone.set_adapter("second")
    model = AdvBNForImageClassification.from_backbone(backbone)
    with torch.no_grad():
        before = model.eval()(PICTURES, branch="auxiliary").logits
    changed = steps(model)
    assert changed
    assert all("second" in one for one in changed) or name != "LoRA of two"
    with torch.no_grad():
        logits = model.eval()(PICTURES, branch="auxiliary").logits
        assert not torch.allclose(logits, before, atol=1e-4)
        torch.testing.assert_close(model.export("auxiliary")(PICTURES).logits, logits, atol=1e-5, rtol=1e-4)


def test_checkpointing_of_an_adapted_model():
    losses = []
    for checkpointed in (False, True):
        model = AdvBNForImageClassification.from_backbone(adapted(tiny_vit(), True))
        model.generator.manual_seed(0)
        if checkpointed:
            model.gradient_checkpointing_enable()
        steps(model)
        losses.append(model.train()(PICTURES, LABELS).loss)
    torch.testing.assert_close(*losses)


def test_trainer_says_what_it_cannot_do_with_merged_checkpoints(tmp_path):
    def trainer(**settings):
        model = AdvBNForImageClassification.from_backbone(adapted(tiny_vit(), False))
        args = AdvBNTrainingArguments(
            str(tmp_path), max_steps=2, save_steps=1, use_cpu=True, report_to="none", disable_tqdm=True, **settings
        )
        return AdvBNTrainer(model, args, train_dataset=rows(16), eval_dataset=rows(8), data_collator=collate)

    with pytest.raises(InputError, match="load_best_model_at_end"):
        trainer(load_best_model_at_end=True, eval_strategy="steps", eval_steps=1)
    trainer().train()
    assert not list((tmp_path / "checkpoint-2").glob("adapter*"))
    with pytest.raises(InputError, match="merged") as caught:
        trainer().train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert "\n" not in str(caught.value)

"""A compiled tail: one graph without a break, and the same numbers."""

from functools import partial

import pytest
import torch
from builders import images_and_labels, rows, tiny_convnext, tiny_resnet, tiny_vit

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments, InputError

MODELS = {"resnet": tiny_resnet, "convnext": tiny_convnext, "vit": tiny_vit}


def steps(model, sizes):
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    for size in sizes:
        pixel_values, labels = images_and_labels(size)
        model(pixel_values=pixel_values, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval().state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_one_graph_and_the_same_numbers(name):
    states, compiled_graphs = [], []

    def backend(graph, inputs):
        compiled_graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    for compiling in (False, True):
        torch.manual_seed(0)
        torch._dynamo.reset()
        model = AdvBNForImageClassification.from_backbone(MODELS[name](), AdvBNConfig()).train()
        if compiling:
            model.split.compile_tail(fullgraph=True, backend=backend)
        states.append(steps(model, [8, 8, 8]))
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=1e-6)
    # One for the ascent and one for each branch, which may share theirs; none is compiled again in later steps.
    assert 2 <= len(compiled_graphs) <= 3
    with torch.no_grad():
        model(pixel_values=images_and_labels(3)[0], branch="both")
    assert len(compiled_graphs) <= 3


@pytest.mark.slow
def test_the_trainer_compiles_the_tail_when_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    args = AdvBNTrainingArguments(
        str(tmp_path), compile_tail=True, max_steps=2, save_strategy="no", report_to="none", use_cpu=True
    )
    model = AdvBNForImageClassification.from_backbone(tiny_resnet())
    trainer = AdvBNTrainer(model, args, train_dataset=rows(16), eval_dataset=rows(6))
    trainer.train()
    assert isinstance(model.split._run, torch._dynamo.OptimizedModule)
    assert trainer.evaluate()["eval_clean_accuracy"] >= 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"torch_compile": True}, "torch_compile: .*compile_tail"),
        ({"compile_tail": True, "gradient_checkpointing": True}, "compile_tail: "),
    ],
)
def test_what_does_not_go_together(settings, message, tmp_path):
    with pytest.raises(InputError, match=message):
        AdvBNTrainingArguments(str(tmp_path), use_cpu=True, **settings)

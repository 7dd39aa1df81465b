"""The demo without a browser: what is asked, what is drawn, what is refused, what a Space holds."""

import ast
import importlib.util
import sys

import pytest
import torch
import yaml
from builders import save_digit_models
from PIL import Image

from advbn_hf import AdvBNForImageClassification, InputError
from advbn_hf.data.transforms import EvaluationTransform
from advbn_hf.demo.sweep import Sweep, SweepPredictions, available_shifts, read_image, sweep
from advbn_hf.demo.sweep_plot import describe_sweep, plot_sweep
from advbn_hf.evaluation.models import load_evaluated_model
from advbn_hf.shifts.generate import shift_image
from advbn_hf.utils.cli import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_digit_models(folder)
    return folder


@pytest.fixture(scope="module")
def models(folder):
    return [load_evaluated_model(str(folder / "plain"), "baseline"), load_evaluated_model(str(folder / "advbn"))]


def gradient(width=48, height=40):
    ramp = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", [ramp, ramp.rotate(180), ramp])


def test_every_severity_is_asked_of_every_branch(folder, models):
    seen = sweep(models, gradient(36, 36), "gaussian_noise")
    assert seen.steps == ["as it is", "1", "2", "3", "4", "5"]
    assert [predictions.title for predictions in seen.predictions] == [
        "baseline",
        "AdvBN, clean branch",
        "AdvBN, auxiliary branch",
    ]
    model = AdvBNForImageClassification.from_pretrained(folder / "advbn").eval()
    transform = EvaluationTransform(models[1].processor)
    shifted = shift_image(gradient(36, 36), "gaussian_noise", 4)
    assert seen.images[4].tobytes() == shifted.tobytes()
    with torch.no_grad():
        logits = model(pixel_values=transform(shifted)[None], branch="auxiliary").logits
    torch.testing.assert_close(seen.predictions[2].probabilities[4], logits[0].softmax(0), rtol=1e-4, atol=1e-5)
    top = seen.predictions[2].top(4)
    assert len(top) == 5 and list(top.values()) == sorted(top.values(), reverse=True)
    assert next(iter(top)) == str(logits[0].argmax().item())


def test_shifts_without_severities_have_one_step_and_none_has_none(models):
    assert sweep(models, gradient(), "inversion").steps == ["as it is", "shifted"]
    assert sweep(models, gradient(), "none").steps == ["as it is"]
    assert {"none", "fog", "inversion"} <= set(available_shifts())


def test_images_are_made_as_small_as_the_models_see_them(models):
    assert sweep(models, gradient(900, 600), "none").images[0].size == (56, 37)  # 32 * 8 / 7
    assert sweep(models, gradient(33, 20), "none").images[0].size == (33, 20)
    with pytest.raises(InputError, match="32 x 32"):
        sweep(models, gradient(33, 20), "gaussian_noise")


def test_what_is_no_image_is_named(tmp_path):
    gradient().convert("CMYK").save(tmp_path / "good.jpg")
    assert read_image(tmp_path / "good.jpg").mode == "RGB"
    gradient(300, 300).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:200])
    (tmp_path / "text.png").write_text("no image")
    for name in ("cut.png", "text.png", "missing.png"):
        with pytest.raises(InputError, match=f"^{name} "):
            read_image(tmp_path / name)


def test_plot_and_text_show_the_confidence_in_the_first_prediction():
    probabilities = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.1, 0.9]])
    steps = ["as it is", "1", "2"]
    seen = Sweep("fog", steps, [gradient()] * 3, [SweepPredictions("baseline", ["$cat$", "dog"], probabilities)])
    assert describe_sweep(seen) == "fog, as it is, 1, 2. baseline, confidence in $cat$: 90%, 40%, 10%."
    assert plot_sweep(seen, 0).tobytes() != plot_sweep(seen, 2).tobytes()


def demo(monkeypatch, *arguments):
    import demo as recipe

    monkeypatch.setattr(sys, "argv", ["demo.py", *map(str, arguments)])
    run(recipe.main)


def test_a_space_holds_all_that_it_needs(monkeypatch, folder, tmp_path):
    pytest.importorskip("gradio", reason="the demo needs gradio: pip install advbn_hf[demo]")
    options = ["--model", folder / "advbn", "--dataset_name", "embedded", "--num_examples", 3]
    demo(monkeypatch, *options, "--export_space", tmp_path / "space")
    space = tmp_path / "space"
    names = {path.name for path in space.iterdir()}
    assert names == {"README.md", "advbn_hf", "app.py", "examples", "model", "requirements.txt"}
    card = yaml.safe_load((space / "README.md").read_text().split("---")[1])
    assert (card["sdk"], card["app_file"]) == ("gradio", "app.py")
    code = (space / "app.py").read_text()
    ast.parse(code)
    assert str(tmp_path) not in code and str(folder) not in code
    required = (space / "requirements.txt").read_text().splitlines()
    assert f"torch=={torch.__version__.partition('+')[0]}" in required
    assert any(line.startswith("imagecorruptions-imaug==") for line in required) and "gradio" not in str(required)
    assert len(list((space / "examples").rglob("*.png"))) == 3
    copied = AdvBNForImageClassification.from_pretrained(space / "model").state_dict()
    original = AdvBNForImageClassification.from_pretrained(folder / "advbn").state_dict()
    assert all(torch.equal(value, copied[name]) for name, value in original.items())
    assert not list(space.rglob("__pycache__"))


@pytest.mark.parametrize(
    "caption",
    ["../../up", "/etc", "..", ".", "", "a\\b", "a\0b", "a" * 5000, "\u732b" * 200, "<b>{{ 7 * 7 }}</b>"],
    ids=ascii,
)
def test_class_names_stay_in_the_folder_of_examples(tmp_path, caption):
    pytest.importorskip("gradio", reason="the demo needs gradio: pip install advbn_hf[demo]")
    from advbn_hf.demo.app import save_examples, saved_examples

    save_examples([(Image.new("RGB", (2, 2)), caption)] * 2, tmp_path / "examples")
    assert [path.name for path in tmp_path.iterdir()] == ["examples"]
    assert {path.parent.parent for path in tmp_path.rglob("*.png")} == {tmp_path / "examples"}
    assert len(saved_examples(tmp_path / "examples")) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "model: "),
        (["--model", "no/such/model"], "no/such/model"),
        (["--model", "{folder}/advbn", "--baseline", "no/such/model"], "no/such/model"),
        (["--model", "{folder}/advbn", "--num_examples", "-1"], "num_examples"),
        (["--model", "{folder}/advbn", "--server_port", "0"], "server_port"),
        (["--model", "{folder}/advbn", "--dataset_name", "{folder}/nowhere"], "nowhere"),
        (["--model", "{folder}/advbn", "--export_space", "{folder}"], "export_space"),
    ],
)
def test_mistakes_end_in_one_line(monkeypatch, folder, capsys, options, message):
    pytest.importorskip("gradio", reason="the demo needs gradio: pip install advbn_hf[demo]")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SystemExit) as left:
        demo(monkeypatch, *(option.format(folder=folder) for option in options))
    assert left.value.code == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in error


def test_without_gradio_it_says_how_to_install_it(monkeypatch, folder, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gradio" else find(name))
    with pytest.raises(SystemExit) as left:
        demo(monkeypatch, "--model", folder / "advbn")
    assert left.value.code == 2
    assert 'error: gradio is not installed: pip install "advbn_hf[demo]"' in capsys.readouterr().err

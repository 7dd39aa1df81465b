"""Metrics as modules of `evaluate`, against values computed by hand or published."""

from pathlib import Path

import evaluate
import numpy as np
import pytest
from builders import tiny_vit
from transformers import ViTImageProcessorPil

from advbn_hf import InputError
from advbn_hf.data.embedded.digits import load_embedded
from advbn_hf.evaluation import metrics
from advbn_hf.evaluation.metrics import METRICS, load_metric
from advbn_hf.evaluation.statistics import wilson_interval

# Corruption -> AlexNet's top-1 error (%) on ImageNet-C at severities 1 to 5, whose means are the published
# normalisers; and ResNet-50's error in percent of AlexNet's, from Hendrycks and Dietterich (2019), who give for that
# model mCE 76.7 and relative mCE 105.0.
PUBLISHED = {
    "gaussian_noise": ((69.528, 82.542, 93.554, 98.138, 99.452), 80),
    "shot_noise": ((71.224, 85.108, 93.574, 98.182, 99.146), 82),
    "impulse_noise": ((78.374, 89.808, 94.870, 98.720, 99.548), 83),
    "defocus_blur": ((65.624, 73.202, 85.036, 91.364, 94.714), 75),
    "glass_blur": ((64.308, 75.054, 88.806, 91.622, 93.344), 89),
    "motion_blur": ((58.430, 70.048, 82.108, 89.750, 92.638), 78),
    "zoom_blur": ((70.008, 76.992, 80.784, 84.198, 87.198), 80),
    "snow": ((71.726, 88.392, 86.468, 91.870, 94.952), 78),
    "frost": ((61.390, 79.734, 88.790, 89.942, 93.430), 75),
    "fog": ((67.474, 76.050, 84.378, 87.260, 94.500), 66),
    "brightness": ((45.140, 48.502, 54.048, 62.166, 72.440), 57),
    "contrast": ((64.548, 76.150, 88.874, 97.760, 99.270), 71),
    "elastic_transform": ((52.596, 70.116, 55.686, 64.076, 80.554), 85),
    "pixelate": ((52.218, 54.620, 73.728, 87.092, 91.262), 77),
    "jpeg_compression": ((51.002, 54.718, 57.294, 65.458, 74.778), 77),
}


def measurements(share: dict[str, float] | float = 1.0) -> dict[str, list]:
    """AlexNet's errors, or a share of them."""
    rows = [
        (name, severity, error / 100 * (share if isinstance(share, float) else share[name]))
        for name, (errors, _) in PUBLISHED.items()
        for severity, error in enumerate(errors, start=1)
    ]
    return dict(zip(("corruptions", "severities", "errors"), map(list, zip(*rows, strict=True)), strict=True))


# Top-k accuracy

SCORES = [[0.1, 0.9, 0.0], [0.5, 0.2, 0.3], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]
LABELS = [1, 2, 0, 0]


@pytest.mark.parametrize(("k", "right"), [(1, 2), (2, 3), (3, 4)])
def test_top_k_by_hand(k, right):
    result = load_metric("top_k_accuracy").compute(predictions=SCORES, references=LABELS, k=k)
    assert result["top_k_accuracy"] == right / 4 and result["n"] == 4
    assert (result["low"], result["high"]) == wilson_interval(right / 4, 4)


def test_top_k_in_batches_is_top_k_at_once():
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal((50, 7)).astype(np.float32), rng.integers(0, 7, 50)
    metric = load_metric("top_k_accuracy")
    for start in range(0, 50, 8):
        metric.add_batch(predictions=scores[start : start + 8], references=labels[start : start + 8])
    in_top_3 = [label in np.argsort(row)[-3:] for row, label in zip(scores, labels, strict=True)]
    assert metric.compute(k=3)["top_k_accuracy"] == pytest.approx(np.mean(in_top_3))


def test_of_equal_scores_the_lower_class_comes_first():
    metric = load_metric("top_k_accuracy")
    assert metric.compute(predictions=[[1.0, 1.0]] * 2, references=[0, 1])["top_k_accuracy"] == 0.5


def test_predicted_classes_are_taken_too():
    metric = load_metric("top_k_accuracy")
    assert metric.compute(predictions=[3, 1, 2], references=[3, 1, 1])["top_k_accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("predictions", "references", "k", "message"),
    [
        ([[0.1, 0.9]], [1], 3, "k: .*2"),
        ([[0.1, 0.9]], [1], 0, "k: "),
        ([[0.1, 0.9]], [2], 1, r"references: .*0\.\.1"),
        ([[0.1, float("nan")]], [1], 1, "number"),
        ([1], [1], 5, "k: .*1 "),
    ],
)
def test_top_k_bad_input(predictions, references, k, message):
    with pytest.raises(InputError, match=message):
        load_metric("top_k_accuracy").compute(predictions=predictions, references=references, k=k)


# Mean corruption error


def test_alexnet_is_100():
    result = load_metric("mean_corruption_error").compute(**measurements(), clean_error=0.4345)
    assert result["mean_corruption_error"] == pytest.approx(100, abs=1e-9)
    assert result["relative_mean_corruption_error"] == pytest.approx(100, abs=1e-9)
    assert result["corruption_errors"] == pytest.approx(dict.fromkeys(PUBLISHED, 100), abs=1e-9)


def test_a_model_against_itself_is_100_without_rounding():
    rng, count = np.random.default_rng(0), 9
    errors = {f"corruption {number}": rng.uniform(0.4, 1) for number in range(count)}
    rows = [(name, severity, error) for name, error in errors.items() for severity in (1, 3, 5)]
    names, severities, values = map(list, zip(*rows, strict=True))
    result = load_metric("mean_corruption_error").compute(
        corruptions=names,
        severities=severities,
        errors=values,
        clean_error=0.3,
        baseline_errors=errors,
        baseline_clean_error=0.3,
    )
    assert result["mean_corruption_error"] == 100.0 and result["relative_mean_corruption_error"] == 100.0


def test_published_resnet50():
    """Its errors in percent of AlexNet's are published in whole numbers only."""
    shares = {name: share / 100 for name, (_, share) in PUBLISHED.items()}
    result = load_metric("mean_corruption_error").compute(**measurements(shares), clean_error=0.2387)
    assert result["mean_corruption_error"] == pytest.approx(76.7, abs=0.3)
    assert result["relative_mean_corruption_error"] == pytest.approx(105.0, abs=0.5)
    assert result["corruption_errors"]["fog"] == pytest.approx(66)


def test_against_a_given_model_by_hand():
    result = load_metric("mean_corruption_error").compute(
        corruptions=["fog", "snow", "fog", "snow"],
        severities=[1, 1, 3, 3],
        errors=[0.2, 0.5, 0.4, 0.7],
        clean_error=0.1,
        baseline_errors={"fog": 0.5, "snow": 0.6},
        baseline_clean_error=0.2,
    )
    assert result["corruption_errors"] == pytest.approx({"fog": 60, "snow": 100})
    assert result["mean_corruption_error"] == pytest.approx(80)
    # (0.3 - 0.1) / (0.5 - 0.2) and (0.6 - 0.1) / (0.6 - 0.2)
    assert result["relative_mean_corruption_error"] == pytest.approx(100 * (2 / 3 + 5 / 4) / 2)


def test_without_clean_errors_there_is_no_relative_one():
    assert "relative_mean_corruption_error" not in load_metric("mean_corruption_error").compute(**measurements())


@pytest.mark.parametrize(
    ("names", "severities", "errors", "settings", "message"),
    [
        (["fog"], [1], [0.5], {}, "AlexNet.* 15 .*gaussian_noise"),
        (["fog"], [1], [50.0], {}, "fog at severity 1 .*fraction"),
        (["fog", "fog"], [1, 1], [0.5, 0.5], {}, "fog at severity 1 .*twice"),
        (["fog", "snow"], [1, 2], [0.5, 0.5], {}, "severities: "),
        (["fog"], [1], [0.5], {"baseline_errors": {"snow": 0.5}}, "fog, snow"),
        (["fog"], [1], [0.5], {"baseline_errors": {"fog": 0.0}}, "fog .*above 0"),
    ],
)
def test_mean_corruption_error_bad_input(names, severities, errors, settings, message):
    metric = load_metric("mean_corruption_error")
    with pytest.raises(InputError, match=message):
        metric.compute(corruptions=names, severities=severities, errors=errors, **settings)


def test_alexnet_needs_all_severities():
    rows = [(name, severity) for name in PUBLISHED for severity in (1, 3, 5)]
    names, severities = map(list, zip(*rows, strict=True))
    with pytest.raises(InputError, match="severities"):
        load_metric("mean_corruption_error").compute(
            corruptions=names, severities=severities, errors=[0.5] * len(rows)
        )


# Expected calibration error


def test_calibration_by_hand():
    # Two images in the bin of 0.75 (one right), two in that of 0.95 (both right).
    probabilities = [[0.75, 0.25], [0.74, 0.26], [0.95, 0.05], [0.04, 0.96]]
    result = load_metric("expected_calibration_error").compute(predictions=probabilities, references=[0, 1, 0, 1])
    assert result["expected_calibration_error"] == pytest.approx((abs(1 - 1.49) + abs(2 - 1.91)) / 4, abs=1e-6)
    assert result["n"] == 4


def test_bins_end_with_their_upper_edge():
    """0.6 is the upper edge of the ninth bin and 0.61 in the tenth: their gaps of 0.4 and -0.61 do not cancel."""
    metric = load_metric("expected_calibration_error")
    result = metric.compute(predictions=[[0.6, 0.4], [0.61, 0.39]], references=[0, 1])
    assert result["expected_calibration_error"] == pytest.approx((0.4 + 0.61) / 2, abs=1e-6)


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_not():
    metric = load_metric("expected_calibration_error")
    certain = {"predictions": [[1.0, 0.0]] * 3}
    assert metric.compute(**certain, references=[0, 0, 0])["expected_calibration_error"] == 0
    assert metric.compute(**certain, references=[1, 1, 1])["expected_calibration_error"] == 1


@pytest.mark.parametrize("predictions", [[[3.0, -1.0]], [[0.5, 0.2]], [[float("nan"), 1.0]]])
def test_calibration_needs_probabilities(predictions):
    with pytest.raises(InputError, match="softmax"):
        load_metric("expected_calibration_error").compute(predictions=predictions, references=[0])


# Loading


def test_an_unknown_metric_is_named():
    with pytest.raises(InputError, match=r"'f1'.*top_k_accuracy"):
        load_metric("f1")


@pytest.mark.parametrize("name", METRICS)
def test_evaluate_loads_the_folder_itself_and_says_what_it_is(name):
    module = evaluate.load(str(Path(metrics.__file__).parent / name))
    assert module.name == name and "Args:" in module.inputs_description and module.description


def test_evaluator_of_evaluate_takes_our_accuracy():
    data = load_embedded("clean", "test", 8)
    result = evaluate.evaluator("image-classification").compute(
        tiny_vit(num_labels=10),
        data,
        metric=load_metric("top_k_accuracy"),
        feature_extractor=ViTImageProcessorPil(size={"height": 32, "width": 32}),
        label_mapping={f"LABEL_{number}": number for number in range(10)},
    )
    assert 0 <= result["low"] <= result["top_k_accuracy"] <= result["high"] <= 1 and result["n"] == 8

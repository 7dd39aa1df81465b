"""Expected calibration error."""

import datasets
import evaluate
import numpy as np

from advbn_hf.errors import InputError
from advbn_hf.evaluation.statistics import calibration_error

_DESCRIPTION = (
    "How far confidence is from accuracy: images are put into 15 bins of equal width by the probability of the "
    "predicted class; the mean over the bins, weighted by their images, of |accuracy - mean confidence|."
)
_CITATION = """\
@inproceedings{naeini2015obtaining,
  title={Obtaining Well Calibrated Probabilities Using Bayesian Binning},
  author={Naeini, Mahdi Pakdaman and Cooper, Gregory F. and Hauskrecht, Milos},
  booktitle={AAAI Conference on Artificial Intelligence},
  year={2015}
}
@inproceedings{guo2017calibration,
  title={On Calibration of Modern Neural Networks},
  author={Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  booktitle={International Conference on Machine Learning},
  year={2017}
}"""
_INPUTS = """
Args:
    predictions: probabilities of all classes for each image, (N, C); of equal ones the lower class is predicted.
    references: labels, (N,).

Returns:
    expected_calibration_error: a fraction in [0, 1]; bins are (i / 15, (i + 1) / 15], as in Guo et al. 2017, eq. 3.
    n: number of images.

Raises:
    InputError: predictions are no probabilities, or there is no image.
"""


class ExpectedCalibrationError(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {
                "predictions": datasets.Sequence(datasets.Value("float32")),
                "references": datasets.Value("int64"),
            }
        )
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation=_CITATION, inputs_description=_INPUTS, features=features
        )

    def _compute(self, predictions: list[list[float]], references: list[int]) -> dict[str, float]:
        probabilities, labels = np.asarray(predictions, np.float32), np.asarray(references)
        if len(labels) == 0:
            raise InputError("references: there is no image to measure")
        # bfloat16 probabilities sum to 1 within about 1 %.
        if not (probabilities >= 0).all() or not np.allclose(probabilities.sum(axis=1), 1, atol=0.02):
            raise InputError("predictions: must be probabilities that sum to 1 for each image; apply a softmax")
        confidence = probabilities.max(axis=1)
        correct = probabilities.argmax(axis=1) == labels
        return {"expected_calibration_error": calibration_error(confidence, correct), "n": len(labels)}

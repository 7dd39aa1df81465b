"""An exported branch in ONNX gives the logits that it gives in torch."""

import numpy as np
import onnxruntime
import pytest
import torch
from builders import images_and_labels, tiny_resnet

from advbn_hf import AdvBNForImageClassification
from advbn_hf.backbones.norms import BRANCHES


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # from inside the exporter
def test_an_exported_branch_agrees_with_onnx(tmp_path):
    model = AdvBNForImageClassification.from_backbone(tiny_resnet())
    images, labels = images_and_labels()
    for _ in range(3):  # moves the running statistics of the branches apart
        model.train()(pixel_values=images, labels=labels)
    torch.onnx.export(
        model.export("auxiliary"),
        kwargs={"pixel_values": images[:2]},
        f=tmp_path / "model.onnx",
        input_names=["pixel_values"],
        output_names=["logits"],
        dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch")}},
        dynamo=True,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pixel_values": images.numpy()})
    with torch.no_grad():
        clean, auxiliary = (model.eval()(pixel_values=images, branch=b).logits.numpy() for b in BRANCHES)
    np.testing.assert_allclose(logits, auxiliary, atol=1e-5)
    assert not np.allclose(logits, clean, atol=1e-3)

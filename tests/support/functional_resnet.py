"""A plain ResNet on the published keys, in functions alone, to compare converted models with."""

import torch
import torch.nn.functional as F


def functional_logits(
    state: dict[str, torch.Tensor], x: torch.Tensor, branch: str, depths: tuple[int, ...], cut: int
) -> torch.Tensor:
    """A ResNet v1.5 on the published keys: stride 1 in stage 1, stride 2 in the first 3x3 convolution of others."""

    def conv(x, name, stride=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(x, name):
        mean, var, weight, bias = (state[f"{name}.{v}"] for v in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias)

    x = F.max_pool2d(F.relu(norm(conv(x, "feature_x.0", 2), "feature_x.1")), 3, stride=2, padding=1)
    for stage, depth in enumerate(depths, start=1):
        bn = "clean_bn" if stage <= cut else f"{branch}_bn"
        for b in range(depth):
            block = f"feature_x.{3 + stage}.{b}" if stage <= cut else f"head.layer{stage}_{b}"
            stride = 2 if stage > 1 and b == 0 else 1
            if f"{block}.conv3.weight" in state:
                y = F.relu(norm(conv(x, f"{block}.conv1"), f"{block}.{bn}1"))
                y = F.relu(norm(conv(y, f"{block}.conv2", stride), f"{block}.{bn}2"))
                y = norm(conv(y, f"{block}.conv3"), f"{block}.{bn}3")
            else:
                y = F.relu(norm(conv(x, f"{block}.conv1", stride), f"{block}.{bn}1"))
                y = norm(conv(y, f"{block}.conv2"), f"{block}.{bn}2")
            if f"{block}.downsample.conv.weight" in state:
                x = norm(conv(x, f"{block}.downsample.conv", stride), f"{block}.downsample.{bn}")
            x = F.relu(x + y)
    return F.linear(x.mean((2, 3)), state["head.fc.weight"], state["head.fc.bias"])

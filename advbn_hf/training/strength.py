"""Whether the perturbation was too strong: the auxiliary branch, which learns from it, then fails on clean images."""

from ..config import AdvBNConfig
from ..utils.advice import either

# Of the clean branch's accuracy; AdvBN gained nothing with less: recipes/RESULTS.md, "When epsilon is too large".
_LEAST = 0.8


def advice_on_strength(clean: float, auxiliary: float, config: AdvBNConfig) -> str | None:
    """What to do where the auxiliary branch fails on images that the clean one knows; None where it does not.

    Args:
        clean: accuracy of the clean branch, in [0, 1], on the evaluation set.
        auxiliary: that of the auxiliary branch, on the same images.
        config: the settings that the model was trained with.

    Example:
        >>> advice_on_strength(0.97, 0.96, AdvBNConfig()) is None
        True
        >>> advice_on_strength(0.9, 0.48, AdvBNConfig()).partition("; ")[2]
        'try a smaller perturbation: epsilon=1, step_size=0.5'
    """
    if auxiliary >= _LEAST * clean:
        return None
    epsilon, step = f"{config.epsilon / 2:g}", f"{config.step_size / 2:g}"
    smaller = either(f"--epsilon {epsilon} --step_size {step}", f"epsilon={epsilon}, step_size={step}")
    return (
        f"the auxiliary branch is right on {auxiliary:.1%}, the clean branch on {clean:.1%}: perturbed features are "
        f"too far from clean ones, so AdvBN gains little; try a smaller perturbation: {smaller}"
    )

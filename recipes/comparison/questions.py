"""Questions that a comparison answers, each a paired difference between two things that it measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from advbn_hf.utils.tables import align_markdown

from .grid import Trial
from .summary import MEAN, paired_gain, values_by_seed


@dataclass(frozen=True)
class Question:
    """A question and the difference that answers it, in points: positive means yes.

    Args:
        text: of the question.
        yes: method and branch that are better if so.
        no: method and branch that are better if not.
        sets: sets to ask it for: styles, or "shifts" for their mean.
    """

    text: str
    yes: tuple[str, str]
    no: tuple[str, str]
    sets: tuple[str, ...] = (MEAN,)


QUESTIONS = (
    Question("Does one adversarial step beat random styles?", ("advbn", "clean"), ("random_image", "clean")),
    Question(
        "Do six, in four groups, at the same place?",
        ("advbn_paper_4:insert_after=embeddings", "clean"),
        ("random_4", "clean"),
    ),
    Question("Is it better after the embeddings?", ("advbn", "clean"), ("advbn:insert_after=auto", "clean")),
    Question(
        "Is the recommended setting better than the published one?", ("advbn", "clean"), ("advbn_paper_4", "clean")
    ),
    Question(
        "Does the auxiliary branch beat the clean one?", ("advbn", "auxiliary"), ("advbn", "clean"), (MEAN, "clean")
    ),
    Question(
        "Does it in the published setting?",
        ("advbn_paper_4", "auxiliary"),
        ("advbn_paper_4", "clean"),
        (MEAN, "stylized", "sketch", "clean"),
    ),
    Question("Do averaged branches beat the clean one?", ("advbn", "average"), ("advbn", "clean"), (MEAN, "clean")),
    Question("Do they beat the auxiliary one?", ("advbn", "average"), ("advbn", "auxiliary"), (MEAN, "clean")),
    Question(
        "Do re-estimated statistics help the auxiliary branch?",
        ("advbn", "re-estimated"),
        ("advbn", "auxiliary"),
        (MEAN, "clean"),
    ),
    Question("Does a soup of both branches' norms beat the clean one?", ("advbn", "soup"), ("advbn", "clean")),
    Question("Does it beat averaged branches?", ("advbn", "soup"), ("advbn", "average"), (MEAN, "clean")),
    Question(
        "Do re-estimated statistics help it?", ("advbn", "soup re-estimated"), ("advbn", "soup"), (MEAN, "clean")
    ),
    Question("Is the clean branch better halfway to the base?", ("advbn", "interpolated"), ("advbn", "clean")),
    Question("Does an average of the weights along the run help?", ("advbn_averaged", "clean"), ("advbn", "clean")),
    Question("Is accuracy on clean images higher than plain's?", ("advbn", "clean"), ("plain", "clean"), ("clean",)),
    Question("Does AugMix help AdvBN?", ("augmix_advbn", "clean"), ("advbn", "clean")),
    Question("Does AdvBN help AugMix?", ("augmix_advbn", "clean"), ("augmix", "clean")),
    Question("Does AdvBN help TrivialAugment?", ("trivialaugment_advbn", "clean"), ("trivialaugment", "clean")),
    Question("Does AdvBN help PRIME?", ("prime_advbn", "clean"), ("prime", "clean")),
    Question("Does AdvBN help RandAugment?", ("randaugment_advbn", "clean"), ("randaugment", "clean")),
    Question("Does AdvBN help RandConv?", ("randconv_advbn", "clean"), ("randconv", "clean")),
    Question(
        "Does the adversary beat random multipliers where there is one branch?",
        ("advbn:auxiliary_norms=false", "clean"),
        ("np", "clean"),
    ),
    Question("Is it more than a doubled loss?", ("advbn", "clean"), ("plain_doubled", "clean")),
)


def answers(trials: Sequence[Trial]) -> str:
    """A table: for each question a line a set, with the difference on each dataset and its 95 % interval over seeds.

    Args:
        trials: of one model and budget, with their results; questions about other methods are left out.
    """
    datasets = list(dict.fromkeys(trial.dataset for trial in trials))
    by_place: dict[tuple[str, str], dict[int, Trial]] = {}
    for trial in trials:
        by_place.setdefault((trial.dataset, trial.method), {})[trial.seed] = trial
    lines = [["question", "on", *datasets]]
    for question in QUESTIONS:
        for name in question.sets:
            cells = []
            for dataset in datasets:
                sides = [
                    values_by_seed(by_place.get((dataset, method), {}), branch, name)
                    for method, branch in (question.yes, question.no)
                ]
                cells.append(difference(*paired_gain(*sides)))
            if any(cells):
                lines.append([question.text, name, *cells])
    return align_markdown(lines)


def difference(gain: float | None, interval: tuple[float, float] | None) -> str:
    """Text of a paired difference, as from `paired_gain`; empty where there is none."""
    if gain is None:
        return ""
    return f"{gain:+.1f}" + ("" if interval is None else " [{:+.1f}, {:+.1f}]".format(*interval))

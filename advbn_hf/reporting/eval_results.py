"""Results for the leaderboards of benchmarks on the Hub, in `.eval_results/*.yaml` beside the card.

The format (huggingface.co/docs/hub/eval-results) is for datasets that are registered as benchmarks: those with an
`eval.yaml` that lists their tasks. For any other dataset there is nothing to write; the card's model-index has it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError
from transformers.utils import logging

from ..errors import InputError
from ..evaluation.records import Record
from ..hub.errors import explained
from ..hub.metadata import is_on_hub
from ..utils.documents import read_yaml
from ..utils.files import write_atomically

logger = logging.get_logger(__name__)


def write_eval_results(
    folder: str | Path,
    records: Iterable[Record],
    dataset: str,
    *,
    config: str | None = None,
    split: str = "validation",
    revision: str | None = None,
    set_name: str = "clean",
) -> Path | None:
    """Writes the accuracies of both branches on a benchmark's task, where the dataset is a benchmark.

    Args:
        folder: the checkpoint's.
        records: what was measured; "advbn" is this model.
        dataset: Hub id of the dataset; for anything else there is nothing to write.
        config: its configuration; "default" without it.
        split: the split that was measured, all of it.
        revision: of the dataset.
        set_name: the records' name for that split.

    Returns:
        The file, or None where the dataset has no such task or nothing was measured.

    Raises:
        InputError: if the Hub does not let the dataset be read.
        ConnectionError: if the Hub cannot be asked.
    """
    measured = [r for r in records if (r.model, r.set, r.shift, r.metric) == ("advbn", set_name, None, "accuracy")]
    tasks = [
        task["id"]
        for task in (_tasks(dataset, revision) if is_on_hub(dataset) else [])
        if (task.get("config") or "default", task.get("split")) == (config or "default", split)
    ]
    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=task,
            value=record.value,
            dataset_revision=revision,
            notes=f"{record.branch} branch" if record.branch else None,
        )
        for task in tasks
        for record in measured
    ]
    if not entries:
        return None
    path = Path(folder) / ".eval_results" / f"{dataset.replace('/', '--')}.yaml"
    write_atomically(path, yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False))
    return path


def _tasks(dataset: str, revision: str | None) -> list[dict[str, Any]]:
    with explained(dataset):
        try:
            path = hf_hub_download(dataset, "eval.yaml", repo_type="dataset", revision=revision)
        except (EntryNotFoundError, RepositoryNotFoundError):
            return []
    try:
        return [task for task in read_yaml(path)["tasks"] if isinstance(task["id"], str)]
    except (
        InputError,
        LookupError,
        TypeError,
    ) as error:  # a training has ended by now, and the file is somebody else's
        logger.warning(f"{dataset}: no tasks can be read from its eval.yaml ({error}); .eval_results is not written")
        return []

"""Publishes a checkpoint folder on the Hub, in one commit: both branches, processor, settings, card and results.

python recipes/push_to_hub.py --checkpoint outputs/quickstart --repo_id me/digits-advbn
    [--private] [--revision BRANCH] [--create_pr] [--dry_run]

The token comes from HF_TOKEN or `hf auth login`. Run again, it uploads what has changed since.
"""

from dataclasses import dataclass, field

from huggingface_hub import CommitOperationAdd

from advbn_hf.hub import full_repo_id, planned_changes, upload_checkpoint
from advbn_hf.hub.contents import additions
from advbn_hf.utils.cli import run
from advbn_hf.utils.options import parse


@dataclass
class PushArguments:
    """What goes where."""

    checkpoint: str = field(metadata={"help": "Folder that recipes/finetune.py or save_pretrained wrote."})
    repo_id: str = field(metadata={"help": "Repository, for example me/digits-advbn; created if missing."})
    private: bool = field(default=False, metadata={"help": "Make a new repository private."})
    revision: str | None = field(default=None, metadata={"help": "Branch to commit to; created if missing."})
    create_pr: bool = field(default=False, metadata={"help": "Open a pull request instead of committing."})
    dry_run: bool = field(default=False, metadata={"help": "Print what would be uploaded, and send nothing."})


def main() -> None:
    """Uploads, or prints what an upload would change."""
    (args,) = parse((PushArguments,))
    if args.dry_run:
        dry_run(args)
        return
    commit = upload_checkpoint(
        args.checkpoint,
        args.repo_id,
        revision=args.revision,
        create_pr=args.create_pr,
        private=args.private or None,
    )
    if commit is None:
        print(f"{args.repo_id} has all of {args.checkpoint} already; nothing was sent")
    else:
        print(f"{args.checkpoint} is on the Hub: {commit.pr_url or commit.commit_url}")


def dry_run(args: PushArguments) -> None:
    """Prints each change with its size in bytes."""
    try:
        operations = planned_changes(args.checkpoint, full_repo_id(args.repo_id), revision=args.revision)
    except ConnectionError:
        print("the Hub was not reached: what it has already is listed too")
        operations = additions(args.checkpoint, args.repo_id)
    sizes = [op.upload_info.size if isinstance(op, CommitOperationAdd) else None for op in operations]
    for operation, size in zip(operations, sizes, strict=True):
        print(f"{'delete' if size is None else f'{size:,}':>12}  {operation.path_in_repo}")
    print(f"{sum(filter(None, sizes)):>12,}  bytes in {len(operations)} files to {args.repo_id}; nothing was sent")


if __name__ == "__main__":
    run(main)

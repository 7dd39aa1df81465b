"""What a Trainer sends to the Hub: the card of a run, and its checkpoint as one commit."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from transformers.utils import logging

from ..errors import InputError
from ..hub import check_access, options_from, upload_checkpoint, upload_in_background
from ..hub.card import CARD_FILE
from ..hub.generated_card import CardArguments, may_replace
from ..utils.files import write_atomically
from .card import card_of_run
from .checkpoints import CheckpointMixin

logger = logging.get_logger(__name__)


class PublishingMixin(CheckpointMixin):
    """Uploads both branches where a Trainer uploads its model; the card never replaces one that a person wrote."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes README.md from what is known, unless somebody has written or edited the one that is there.

        `save_model` does the same, also with what was given here.

        Args:
            args: as for `Trainer.create_model_card`; see `CardArguments`.
            kwargs: likewise.

        Raises:
            InputError: if an argument would make an invalid card, or the model has none.
        """
        self.card_arguments = CardArguments(*args, **kwargs).over(self.card_arguments)
        if not self.unwrapped.has_card:
            raise InputError(
                f"create_model_card: {type(self.unwrapped).__name__} has no card; leave its arguments out"
            )
        path = Path(self.args.output_dir) / CARD_FILE
        if not self.is_world_process_zero():
            return
        if may_replace(path):
            write_atomically(path, card_of_run(self))
        else:
            logger.warning(f"{path} was written or edited by somebody, and stays")

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Checks login and permission. The first upload creates the repository, so that it is never empty."""
        if self.is_world_process_zero():
            self.hub_model_id = check_access(self.args, token=token, private=private)

    def push_to_hub(
        self,
        commit_message: str = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        create_pr: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | Future | None:
        """Saves the model and uploads what belongs on the Hub from the output folder, as one commit.

        Args:
            commit_message: first line of the commit.
            blocking: whether to wait for the upload.
            token: a write token; by default `hub_token`, `HF_TOKEN` or the login.
            revision: branch to commit to; by default `hub_revision`.
            private: whether a new repository is private; by default `hub_private_repo`.
            create_pr: open a pull request instead of committing to the branch.
            kwargs: for `create_model_card`.

        Returns:
            The commit, None where nothing had changed; a future of that if not `blocking`.

        Raises:
            InputError: as `advbn_hf.hub.upload_checkpoint`, or an argument would make an invalid card.
            ConnectionError: the Hub failed or was not reached.
        """
        if kwargs:
            self.create_model_card(**kwargs)
        if self.hub_model_id is None:
            self.init_hf_repo(token, private)
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.save_model()
        if not self.is_world_process_zero():
            return None
        if self.push_in_progress is not None:
            self.push_in_progress.wait_until_done()
        upload = upload_checkpoint if blocking else upload_in_background
        given = {"token": token, "revision": revision, "private": private, "create_pr": create_pr}
        options = options_from(self.args, commit_message=commit_message, **given)
        return upload(self.args.output_dir, self.hub_model_id, **options)

"""A checkpoint on the Hub: its card, and one commit of the files that belong there and of no others."""

from .contents import files_to_upload
from .upload import check_access, full_repo_id, options_from, planned_changes, upload_checkpoint, upload_in_background

__all__ = [
    "check_access",
    "files_to_upload",
    "full_repo_id",
    "options_from",
    "planned_changes",
    "upload_checkpoint",
    "upload_in_background",
]

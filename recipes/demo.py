"""Opens a page to try a classifier on shifted images, beside a baseline.

python recipes/demo.py --model ID_OR_FOLDER [--baseline ID_OR_FOLDER] [--option value ...]
python recipes/demo.py recipes/configs/demo.yaml                     the quickstart's models

It needs `pip install advbn_hf[demo]`. --export_space DIR writes the page as a Space of the Hub instead.
"""

import importlib.util
from dataclasses import dataclass, field

from advbn_hf.errors import InputError, check_at_least
from advbn_hf.utils.cli import run
from advbn_hf.utils.files import check_empty
from advbn_hf.utils.options import parse


@dataclass
class DemoArguments:
    """What to show."""

    model: str | None = field(default=None, metadata={"help": "Hub id or folder of the model, with both branches."})
    baseline: str | None = field(default=None, metadata={"help": "Hub id or folder of a model to compare with."})
    dataset_name: str | None = field(
        default=None,
        metadata={"help": 'Dataset with images to choose from; "embedded" where the model knows its classes.'},
    )
    split: str = field(default="test", metadata={"help": "Split of the dataset."})
    num_examples: int = field(default=10, metadata={"help": "Images to choose from."})
    server_name: str = field(default="127.0.0.1", metadata={"help": "Address to serve on; 0.0.0.0 for all."})
    server_port: int = field(default=7860, metadata={"help": "Port to serve on."})
    export_space: str | None = field(
        default=None, metadata={"help": "Empty or new folder to write the page to as a Space, instead of serving it."}
    )


def main() -> None:
    """Loads the models and serves the page, or writes it."""
    (args,) = parse((DemoArguments,))
    if args.model is None:
        raise InputError("model: give the Hub id or folder of the model to show")
    check_at_least("num_examples", args.num_examples, 0)
    if not 1 <= args.server_port <= 65535:
        raise InputError(f"server_port must be in 1..65535, got {args.server_port}")
    if importlib.util.find_spec("gradio") is None:
        raise InputError('gradio is not installed: pip install "advbn_hf[demo]"')
    from advbn_hf.demo.app import build_app, launch, load_examples, load_models
    from advbn_hf.demo.space import export_space

    if args.export_space is not None:
        check_empty(args.export_space, "export_space")
    models = load_models(args.model, args.baseline)
    examples = load_examples(models, args.dataset_name, args.split, args.num_examples)
    if args.export_space is not None:
        export_space(args.export_space, {"model": args.model, "baseline": args.baseline}, models, examples)
        print(
            f"written to {args.export_space}; hf upload --repo-type space ID {args.export_space} . puts it on the Hub"
        )
        return
    try:
        launch(build_app(models, examples), server_name=args.server_name, server_port=args.server_port)
    except OSError as error:
        raise InputError(f"server_port: {args.server_port} cannot be served on; choose another ({error})") from error


if __name__ == "__main__":
    run(main)

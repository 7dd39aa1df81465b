"""The demo's page: choose an image and a shift, see the shifted image and what each model predicts."""

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

from ..data.images import ImageDataset
from ..data.loading import class_names, load_images
from ..errors import InputError
from ..evaluation.fit import check_fit
from ..evaluation.models import EvaluatedModel, load_evaluated_model
from ..utils.files import write_atomically
from ..utils.tables import escape_markdown
from .sweep import NO_SHIFT, Sweep, available_shifts, predict_branches, read_image, sweep
from .sweep_plot import describe_sweep, plot_sweep

TITLE = "How far a classifier can be trusted when images change"
SHOWN_SIDE = 320  # pixels that small images are enlarged to
# Fonts of the visitor's own machine: the page loads nothing from other servers.
THEME = gr.themes.Default(
    font=["ui-sans-serif", "system-ui", "sans-serif"], font_mono=["ui-monospace", "Consolas", "monospace"]
)
CSS = """
.gradio-container { max-width: 1100px !important; margin: auto }
#examples .grid-container { grid-template-columns: repeat(5, minmax(0, 1fr)) !important }
#examples .thumbnail-item { aspect-ratio: 1; height: auto !important }
#examples .grid-wrap, #examples .grid-container { height: auto !important; min-height: 0 !important }
#plot, #plot .image-container, #plot .image-frame { height: auto !important; min-height: 0 !important }
#plot img { width: 100%; max-width: 560px; height: auto !important; margin: auto; display: block }
"""
Example = tuple[Image.Image, str]


def load_models(model: str, baseline: str | None) -> list[EvaluatedModel]:
    """The models of the demo, the baseline first.

    Args:
        model: Hub id or folder of an AdvBN checkpoint, or of any other image classifier.
        baseline: the same of a model to compare with.

    Raises:
        InputError: a model cannot be loaded, or does not take what its image processor makes.
    """
    models = [] if baseline is None else [load_evaluated_model(baseline, "baseline")]
    models.append(load_evaluated_model(model))
    for evaluated in models:
        check_fit(evaluated)
    return models


def load_examples(models: list[EvaluatedModel], dataset_name: str | None, split: str, count: int) -> list[Example]:
    """Images to choose from, the first of each class in turn, with their class.

    Args:
        models: the models.
        dataset_name: a dataset; None for the embedded one where the first model knows its classes, else for none.
        split: the split to take them from.
        count: how many.

    Raises:
        InputError: the dataset cannot be loaded, or an image not be decoded.
    """
    rows = load_images(dataset_name or "embedded", split)
    names, labels = class_names(rows), rows["label"]
    if dataset_name is None and models[0].class_names != names:
        return []
    of_class: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        of_class.setdefault(label, []).append(index)
    turns = [(turn, label, index) for label, found in of_class.items() for turn, index in enumerate(found[:count])]
    chosen = [index for _, _, index in sorted(turns)[:count]]
    images = ImageDataset(rows, transform=lambda image: image)
    return [
        (images[index]["pixel_values"], str(labels[index]) if names is None else names[labels[index]])
        for index in chosen
    ]


def save_examples(examples: list[Example], folder: Path) -> None:
    """Writes images and captions as files: a folder for each caption."""
    folder.mkdir()
    for index, (image, caption) in enumerate(examples):
        place = folder / (re.sub(r"[\\/\0]", "-", caption).strip(".")[:60] or "-")  # a name has at most 255 bytes
        place.mkdir(exist_ok=True)
        image.save(place / f"{index:02d}.png")


def saved_examples(folder: Path) -> list[Example]:
    """The examples that `save_examples` wrote, in the same order."""
    return [(read_image(path), path.parent.name) for path in sorted(folder.rglob("*.png"), key=lambda p: p.name)]


def build_app(models: list[EvaluatedModel], examples: list[Example]) -> gr.Blocks:
    """The page.

    Args:
        models: the models, from `load_models`.
        examples: images to choose from, with captions.
    """
    blank = [Image.new("RGB", (64, 64))]
    titles = [branch.title for evaluated in models for branch in predict_branches(evaluated, blank)]

    def look(image: Image.Image | None, shift: str, severity: int) -> list[Any]:
        """Everything that depends on image and shift."""
        slider = gr.Slider(visible=False)
        if image is None:
            return [None, slider, "Choose an image.", *_view(None, severity, len(titles))]
        try:
            seen = sweep(models, image, shift)
        except InputError as error:
            return [None, slider, _warning(error), *_view(None, severity, len(titles))]
        slider = gr.Slider(visible=len(seen.steps) > 2)
        return [seen, slider, "", *_view(seen, severity, len(titles))]

    def upload(path: str, shift: str, severity: int) -> list[Any]:
        try:
            image = read_image(path)
        except InputError as error:
            return [None, *look(None, shift, severity)[:2], _warning(error), *_view(None, severity, len(titles))]
        return [image, *look(image, shift, severity)]

    def pick(shift: str, severity: int, event: gr.SelectData) -> list[Any]:
        image = examples[event.index][0]
        return [image, *look(image, shift, severity)]

    with gr.Blocks(title=TITLE, analytics_enabled=False) as app:
        image, seen = gr.State(examples[0][0] if examples else None), gr.State(None)
        gr.Markdown(f"# {TITLE}\n{_about(models)}")
        with gr.Row():
            with gr.Column(min_width=280):
                button = gr.UploadButton("Upload an image", variant="primary", elem_id="upload")
                message = gr.Markdown("Choose an image.", elem_id="message")
                gallery = gr.Gallery(
                    [(_enlarged(image), caption) for image, caption in examples],
                    label="Images to pick from",
                    show_label=False,
                    buttons=[],
                    columns=5,
                    height="auto",
                    allow_preview=False,
                    interactive=False,
                    visible=bool(examples),
                    elem_id="examples",
                )
                shift = gr.Dropdown(available_shifts(), value=NO_SHIFT, label="Shift", elem_id="shift")
                severity = gr.Slider(1, 5, value=3, step=1, label="Severity", visible=False, elem_id="severity")
            with gr.Column(min_width=280):
                shown = gr.Image(
                    label="What the models see", interactive=False, height=SHOWN_SIDE + 20, elem_id="shown", buttons=[]
                )
        with gr.Row():
            labels = [
                gr.Label(label=title, num_top_classes=5, min_width=240, elem_id=f"prediction-{place}")
                for place, title in enumerate(titles)
            ]
        plot = gr.Image(label="Over the severities", show_label=False, interactive=False, buttons=[], elem_id="plot")

        view = [shown, plot, *labels]
        settings, results = [shift, severity], [seen, severity, message, *view]
        button.upload(upload, [button, *settings], [image, *results])
        gallery.select(pick, settings, [image, *results])
        shift.change(look, [image, *settings], results)
        severity.change(
            lambda seen, severity: _view(seen, severity, len(titles)),
            [seen, severity],
            view,
            trigger_mode="always_last",
        )
        app.load(look, [image, *settings], results)
    return app


def launch(app: gr.Blocks, **options: Any) -> None:
    """Serves the page until it is stopped.

    Args:
        app: from `build_app`.
        options: for `gr.Blocks.launch`.
    """
    app.launch(theme=THEME, css=CSS, **options)


def _view(seen: Sweep | None, severity: int, models: int) -> list[Any]:
    """The outputs that show a sweep: image, plot, predictions."""
    if seen is None:
        return [None, gr.Image(None, visible=False), *[None] * models]
    place = min(severity, len(seen.steps) - 1)
    top = [branch.top(place) for branch in seen.predictions]
    plot = gr.Image(_cached(plot_sweep(seen, place)), alt_text=describe_sweep(seen), visible=len(seen.steps) > 1)
    return [_cached(_enlarged(seen.images[place])), plot, *top]


def _enlarged(image: Image.Image) -> Image.Image:
    """Small images enlarged, so that their pixels are seen."""
    factor = SHOWN_SIDE // max(image.size)
    if factor < 2:
        return image
    return image.resize([factor * side for side in image.size], Image.Resampling.NEAREST)


def _cached(image: Image.Image) -> str:
    """A file of an image where Gradio keeps its own, written once.

    Gradio writes an image in place each time that it is shown, while another visitor may be loading the same one.
    """
    content = io.BytesIO()
    image.save(content, format="png")
    path = Path(get_upload_folder()) / hashlib.sha256(content.getvalue()).hexdigest() / "image.png"
    if not path.exists():
        write_atomically(path, content.getvalue())
    return str(path)


def _warning(error: InputError) -> str:
    return f"**{escape_markdown(str(error))}**"


def _about(models: list[EvaluatedModel]) -> str:
    compared = " and ".join(_name(evaluated) for evaluated in models)
    return (
        f"Upload an image or pick one, choose a shift and its severity, and compare the predictions of {compared}. "
        "Images are resized to about the models' input size before they are shifted."
    )


def _name(evaluated: EvaluatedModel) -> str:
    if evaluated.name == "advbn":
        return "both branches of the AdvBN model"
    return f"the {escape_markdown(Path(evaluated.name).name)}"

"""Visitors of the demo at the same time: each gets the answers to their own image."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from builders import save_digit_models
from PIL import Image

pytest.importorskip("gradio", reason="the demo needs gradio: pip install advbn_hf[demo]")
gradio_client = pytest.importorskip("gradio_client")
VISITORS = 4


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    from advbn_hf.demo.app import build_app, load_models

    folder = tmp_path_factory.mktemp("models")
    save_digit_models(folder)
    models = load_models(str(folder / "advbn"), str(folder / "plain"))
    for evaluated in models:  # holds requests in the tail, so that they meet there
        head = "backbone.classifier" if evaluated.name == "advbn" else "classifier"
        evaluated.model.get_submodule(head).register_forward_pre_hook(lambda *_: time.sleep(0.1))
    app = build_app(models, [(noise(0), "0")])
    app.launch(prevent_thread_lock=True, server_name="127.0.0.1", quiet=True)
    yield app.local_url
    app.close()


def noise(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8))


def answers_of(response):
    return [part["confidences"] for part in response if isinstance(part, dict) and "confidences" in part]


@pytest.mark.slow
def test_visitors_at_once_get_the_answers_to_their_own_images(address, tmp_path):
    for seed in range(VISITORS):
        noise(seed).save(tmp_path / f"{seed}.png")
    clients = [gradio_client.Client(address, verbose=False) for _ in range(VISITORS)]

    def ask(place, shift):
        """By upload or, where an example lies in the page already, by looking again."""
        if place == 0:
            return answers_of(clients[place].predict(shift, 3, api_name="/look"))
        image = gradio_client.handle_file(str(tmp_path / f"{place}.png"))
        return answers_of(clients[place].predict(image, shift, 3, api_name="/upload"))

    shifts = ("none", "gaussian_noise")
    alone = {(place, shift): ask(place, shift) for place in range(VISITORS) for shift in shifts}
    assert all(len(predictions) == 3 for predictions in alone.values())
    assert len({str(predictions) for predictions in alone.values()}) == len(alone)

    def wrong_of(place):
        return sum(ask(place, shift) != alone[place, shift] for shift in shifts * 3)

    with ThreadPoolExecutor(VISITORS) as pool:
        assert list(pool.map(wrong_of, range(VISITORS))) == [0] * VISITORS


def test_an_image_that_several_visitors_see_is_written_once(address):
    """Written again, it would be loaded half-written by a visitor who asked just before."""
    client = gradio_client.Client(address, verbose=False, download_files=False)
    files = []
    for _ in range(2):
        shown = [part for part in client.predict("inversion", 3, api_name="/look") if isinstance(part, dict)]
        paths = sorted({part["path"] for part in map(value_of, shown) if part.get("path")})
        files.append([(path, Path(path).stat().st_mtime_ns, Path(path).stat().st_ino) for path in paths])
    assert len(files[0]) == 2  # image and plot
    assert files[0] == files[1]


def value_of(part):
    """An output's value, where it comes with changes of its component."""
    return part["value"] if isinstance(part.get("value"), dict) else part

"""The demo end to end: `recipes/demo.py` in headless Chromium, and the Space that it exports."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import browser
import pytest
from browser import wait_until
from builders import save_digit_models
from PIL import Image

pytest.importorskip("gradio", reason="the demo needs gradio: pip install advbn_hf[demo]")
pytestmark = pytest.mark.slow

RECIPE = Path(__file__).parents[2] / "recipes" / "demo.py"
HOSTILE = '<img src=x onerror="document.title=1"> 7'
ARROW_RIGHT, TAB, ENTER, SELECT_ALL = "\ue014", "\ue004", "\ue007", "\ue009a\ue000"  # as the protocol codes keys


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_digit_models(folder)
    for path in folder.rglob("config.json"):  # a class name with markup in it
        config = json.loads(path.read_text())
        config["id2label"]["7"] = HOSTILE
        config["label2id"] = {name: int(index) for index, name in config["id2label"].items()}
        path.write_text(json.dumps(config))
    return folder


@contextmanager
def serving(command, folder, **environment):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "OMP_NUM_THREADS": "1", **environment}
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *(str(part).format(port=port) for part in command)],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: _answers(port) or server.poll() is not None, 120)
        assert server.poll() is None, (folder / "log.txt").read_text()
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()


def _answers(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).status == 200
    except OSError:
        return False


@pytest.mark.skipif(browser.why_not() is not None, reason=browser.why_not() or "")
def test_upload_slider_result_and_bad_file(models, tmp_path):
    Image.new("RGB", (48, 48), (200, 40, 40)).save(tmp_path / "red.png")
    bad = tmp_path / "<b>no image.png"  # Gradio itself takes the brackets out of names
    bad.write_bytes(b"no image")
    command = [RECIPE, "--model", models / "advbn", "--baseline", models / "plain", "--dataset_name", "embedded"]
    paths = {"PYTHONPATH": str(RECIPE.parents[1])}
    with (
        serving([*command, "--server_port", "{port}"], tmp_path, **paths) as address,
        browser.chromium(tmp_path / "profile") as page,
    ):
        page.resize(1280, 900)
        page.call("url", {"url": address})
        # the first image is there, with five predictions of each model
        wait_until(lambda: page.text("#prediction-2").count("%") == 5)
        assert [page.text(f"#prediction-{place}").split("\n")[0] for place in range(3)] == [
            "baseline",
            "AdvBN, clean branch",
            "AdvBN, auxiliary branch",
        ]
        picked = page.run(SHOWN)
        page.run("document.querySelectorAll('#examples button.thumbnail-item')[3].click()")
        wait_until(lambda: page.run(SHOWN) != picked)

        # upload
        before = page.run(SHOWN)
        page.type("input[type=file]", str(tmp_path / "red.png"))
        wait_until(lambda: page.run(SHOWN) != before)
        wait_until(lambda: page.text("#prediction-0").count("%") == 5)
        plain = page.text("#prediction-0")

        # a shift, chosen by keyboard; the slider comes, and another severity shows another image
        page.run("document.querySelector('#shift input').focus()")
        page.type("#shift input", f"{SELECT_ALL}gaussian_noise{ENTER}")
        wait_until(lambda: page.run("return !!document.querySelector('#severity input[type=range]')"))
        wait_until(lambda: page.text("#prediction-0") != plain)
        at_three, shown = page.text("#prediction-0"), page.run(SHOWN)
        page.run("document.querySelector('#severity input[type=range]').focus()")
        page.press(ARROW_RIGHT)
        wait_until(lambda: page.run(SHOWN) != shown)
        wait_until(lambda: page.text("#prediction-0") != at_three)
        assert page.run("return document.querySelector('#plot img').alt").count("%") >= 3

        # markup in a class name is text
        assert page.run("return document.querySelectorAll('img[src=x]').length") == 0
        assert page.run("return document.title") != "1"

        # nothing is wider than a phone
        page.resize(390, 844)
        wait_until(lambda: page.run("return document.documentElement.scrollWidth") <= 390)
        page.resize(1280, 900)

        # no image
        page.type("input[type=file]", str(bad))
        wait_until(lambda: "is no image that can be read" in page.text("#message"))
        assert "no image.png" in page.text("#message")
        assert page.text("#prediction-0").count("%") == 0

        # every control is reached by the keyboard
        reached = []
        page.run("document.activeElement.blur()")
        for _ in range(25):
            page.press(TAB)
            reached.append(page.run(FOCUSED))
        assert {"upload", "examples", "shift"} <= set(reached)


SHOWN = "return document.querySelector('#shown img')?.src"
FOCUSED = """
for (let e = document.activeElement; e; e = e.parentElement)
  if (['upload', 'examples', 'shift', 'severity'].includes(e.id)) return e.id;
"""


def test_exported_space_runs_by_itself(models, tmp_path):
    command = [RECIPE, "--model", models / "advbn", "--baseline", models / "plain", "--dataset_name", "embedded"]
    subprocess.run(
        [sys.executable, *command, "--num_examples", "3", "--export_space", tmp_path / "space"],
        env={**os.environ, "PYTHONPATH": str(RECIPE.parents[1])},
        check=True,
    )
    moved = (tmp_path / "space").rename(tmp_path / "elsewhere")
    with serving(["app.py"], moved, PYTHONPATH="", HF_HUB_OFFLINE="1") as address:
        page = urllib.request.urlopen(f"{address}config", timeout=30).read().decode()
    assert "AdvBN, auxiliary branch" in page and "baseline" in page

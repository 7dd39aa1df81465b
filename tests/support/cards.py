"""Generated cards of a small model, on disk and on the double of the Hub."""

from builders import tiny_resnet

from advbn_hf import AdvBNConfig, AdvBNForImageClassification

HUB = {"push_to_hub": True, "hub_model_id": "me/digits"}


def wrapped(epsilon=2.0, **settings):
    return AdvBNForImageClassification.from_backbone(tiny_resnet(), AdvBNConfig(epsilon=epsilon, **settings))


def on_hub(client):
    return client.files("me/digits")["README.md"].decode()


def write_on_hub(client, text):
    client.api(client.token()).upload_file(
        path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id="me/digits"
    )


def row(card, name):
    """The cells of a line of a table; names are escaped as Markdown needs it."""
    (line,) = [line for line in card.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.split("|")[2:-1]]

"""A model goes to a hub and comes back the same, and its card is one that the hub takes.

The hub is a stand-in on this machine; what speaks with it is the hub's own client.
"""

import importlib

import jax
import numpy as np
import pytest

import ddgan_jax
from ddgan_jax import cli
from ddgan_jax.errors import UserError
from ddgan_jax.files import foreign
from ddgan_jax.inference import card_metadata, drawing, load, model_card
from tests import hub_stand_in
from tests.methods import gray_drawer

client = pytest.importorskip("huggingface_hub")
constants = importlib.import_module("huggingface_hub.constants")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that the client finds, with a token."""
    with hub_stand_in.running() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        # A protocol of its own, beside HTTP.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", hub_stand_in.TOKEN)
        yield hub


@pytest.fixture
def uncompiled(monkeypatch):
    monkeypatch.setattr(drawing, "make_drawer", gray_drawer)


def test_pushed_and_loaded_again(hub, uncompiled):
    digits = ddgan_jax.load("digits")
    address = digits.push_to_hub("user/digits", private=True, sampler_weights="none")
    assert address == "hf://user/digits" and hub.private == {"user/digits"}
    names = {"README.md", "config.json", "model.safetensors", "samples.png"}
    assert hub.files["user/digits"].keys() == names
    back = ddgan_jax.load(address)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, back.params, digits.params)))
    assert back.about == digits.about and back.step == digits.step
    # A second push is a second commit to the same repository.
    digits.push_to_hub("hf://user/digits", sampler_weights="none", licence="MIT")
    assert b"license: mit" in hub.files["user/digits"]["README.md"]


def test_command(hub, uncompiled, capsys):
    command = ["export", "--export=digits", "--sampler-weights=none", "--seeds=0"]
    assert cli.main([*command, "--push=hf://user/x"]) == 0
    assert capsys.readouterr().out == "step 2400 in hf://user/x; see README.md there\n"
    assert not hub.private and "config.json" in hub.files["user/x"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "name one place, with --out=FOLDER or with --push=hf://user/name"),
        (["--out=x", "--push=hf://user/x"], "name one place, with --out=FOLDER or with --push="),
        (["--push=digits"], "--push=digits is no repository: write hf://user/name"),
        (["--out=x", "--private"], "--private belongs to --push"),
        (["--push=hf://forbidden/x"], "cannot write hf://forbidden/x: the token may not write"),
    ],
)
def test_mistakes_are_one_line(hub, flags, message, capsys):
    assert cli.main(["export", "--export=digits", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not hub.files


def test_refusals_come_before_anything_is_drawn(hub, monkeypatch):
    digits = ddgan_jax.load("digits")
    with pytest.raises(UserError, match="the hub does not know you: log in with `hf auth login`"):
        digits.push_to_hub("user/x", token="hf_of_nobody")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot write hf://user/x: .*refused") as caught:
        digits.push_to_hub("user/x")
    assert "\n" not in str(caught.value)
    assert not hub.files


# ------------------------------------------------------------------------------------ the card


def about(**changes):
    found = {
        "method": "DDGAN",
        "licence": "CC-BY-4.0",
        "data": {"name": "cifar10", "num_classes": 0, "image_size": 32},
        "metrics": {"source": "metrics.jsonl", "d_loss": 0.7, "eval/fid_5000": 9.1, "eval/is": 8.0},
        "denoising_steps": 4,
        "parameters": 7,
        "dtype": "float32",
        "weights": "ema",
        "step": 12,
        "provenance": {},
    }
    return found | changes


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"licence": "not stated"},
        {"licence": "a: b\n---\nlicense: mit"},
        {"data": {"name": "---\nx: [", "num_classes": 3, "image_size": 8}, "metrics": {}},
        {"metrics": {"fid": 3.75, "is: x": 1, "density_coverage_of_nothing": 0}},
    ],
)
def test_front_matter_is_what_the_hubs_own_client_reads_and_writes(changes):
    fields = card_metadata.fields(about(**changes))
    card = client.ModelCard(model_card.render(about(**changes), [0]))
    assert card.data.to_dict() == fields
    written = "\n".join(card_metadata.front_matter(about(**changes)))
    ours = client.ModelCardData(**fields).to_yaml()
    assert written == f"---\n{ours}\n---"


def test_card_has_what_lists_and_readers_need():
    card = model_card.render(about(), [0])
    assert "| metrics | fid 5000: 9.1, is: 8 |" in card and "d loss" not in card
    assert "license: cc-by-4.0\nmetrics:\n- fid\n- is\npipeline_tag: uncond" in card
    assert "![one seed](samples.png)" in card
    unstated = model_card.render(about(licence=model_card.UNKNOWN_LICENCE), [0])
    assert "not stated; `ddgan export --licence=NAME` states it" in unstated
    assert "license:" not in unstated


def test_card_of_the_model_that_comes_along_is_that_of_its_export():
    """Its words about the training apart, which were added by hand."""
    text = (load.BUILT_IN / "digits" / "README.md").read_text()
    kept = foreign.read_json(load.BUILT_IN / "digits" / "config.json")
    ours = model_card.render(kept, range(100))
    assert ours.split("## Drawing images")[0] == text.split("## Drawing images")[0]
    assert client.ModelCard(text).data.license == "apache-2.0"

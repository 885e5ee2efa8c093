"""Paths that people write: every one is a place or one clear line."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddgan_jax.errors import UserError, printable, shown
from ddgan_jax.files import paths


def test_home_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Path(paths.user_path("~/x")) == tmp_path / "x"
    assert Path(paths.user_path("~root/x")) == Path(os.path.expanduser("~root")) / "x"
    assert Path(paths.user_path("./~x")) == Path("~x")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "is empty"),
        ("a\0b", "zero byte"),
        ("~nosuchuser/x", "home folder of ~nosuchuser is not known"),
        ("http://host/x", "no place that this program can open"),
        ("file:///x", "no place"),
        ("S3://bucket/x", "no place"),
        ("x" * 256, "too long"),
        ("a/" * 3000, "too long"),
        ("\ud800", "characters that no name may"),
        ("é" * 128, "too long"),
    ],
)
def test_what_is_no_place(written, message):
    with pytest.raises(UserError, match=message) as caught:
        paths.user_path(written, "workdir")
    assert str(caught.value).startswith("`workdir") and len(str(caught.value)) < 300


def test_a_bucket_needs_its_package(monkeypatch):
    monkeypatch.setattr(paths.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="gs://bucket/run` needs gcsfs: pip install gcsfs"):
        paths.user_path("gs://bucket/run", "workdir")
    monkeypatch.setattr(paths.importlib.util, "find_spec", lambda name: name == "gcsfs")
    assert os.fspath(paths.user_path("gs://bucket/run")) == "gs://bucket/run"


@pytest.mark.parametrize("written", ["://x", "a/b://c", "./gs://bucket", "/a:///b", "9p://x"])
def test_colons_and_slashes_further_on_are_names(written):
    assert not paths.is_bucket(written)
    path = paths.user_path(written)
    assert os.path.abspath(path) == os.path.abspath(written)
    assert os.fspath(path / "x") == os.path.join(path, "x")


@pytest.mark.parametrize("written", ["r[1]", "*", "a?b", "x]", os.fsdecode(b"r\xff")])
def test_run_folders_that_could_not_be_found_again(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="name (a|another) run folder"):
        paths.run_folder_path(written)
    if written.isprintable():  # and the same below a folder of that name
        (tmp_path / written).mkdir()
        monkeypatch.chdir(tmp_path / written)
        with pytest.raises(UserError, match="name a run folder"):
            paths.run_folder_path("plain")


def test_without_a_home_nothing_is_kept(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no entry in passwd either
    assert paths.cache_folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "gs://bucket")  # a folder "gs:" would come, here
    assert paths.cache_folder() is None


@given(st.text(st.characters() | st.sampled_from(":/~."), max_size=80))
def test_any_text_is_a_place_or_a_line(written):
    try:
        path = paths.user_path(written)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        os.fsencode(path)  # the system takes it
        assert all(len(os.fsencode(part)) <= 255 for part in Path(path).parts)


@given(st.text(st.characters()))
def test_shown_is_printable_and_short(text):
    assert shown(text).isprintable() and len(shown(text)) <= 60
    assert all(c.isprintable() or c in "\n\t\r" for c in printable(text))
    if text.isprintable():
        assert printable(text) == text


def test_bytes_of_names_are_shown_as_such():
    assert printable(os.fsdecode(b"a\xff\x1b[2J")) == "a\\xff\\x1b[2J"

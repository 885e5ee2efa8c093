"""Names of parameters: from nested dicts to names and back, in one order, without confusion."""

import hashlib

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddgan_jax.inference import weights
from ddgan_jax.models import parameters

pytestmark = pytest.mark.quick

NAMES = st.text(st.characters(exclude_characters="/", codec="utf-8"), max_size=4)
ARRAYS = st.integers(0, 9).map(np.float32)
TREES = st.recursive(
    st.dictionaries(NAMES, ARRAYS, min_size=1),
    lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=4),
    max_leaves=12,
)


@given(TREES)
def test_nested_is_the_inverse_of_named(tree):
    arrays = parameters.named(tree)
    assert parameters.nested(arrays) == tree
    assert list(arrays) == sorted(arrays)
    assert len(arrays) == len(jax.tree.leaves(tree))


def test_names_are_paths():
    tree = {"b": {"kernel": 1, "bias": 2}, "a_0": {"c": {"kernel": 3}}, "a": {"z": 4}}
    assert list(parameters.named(tree).items()) == [
        ("a/z", 4), ("a_0/c/kernel", 3), ("b/bias", 2), ("b/kernel", 1)
    ]  # fmt: skip


@pytest.mark.parametrize("tree", [{"a/b": 1, "a": {"b": 2}}, {"a": {"b/c": 1}}, {"/": 1}])
def test_names_that_could_be_taken_for_others_are_refused(tree):
    with pytest.raises(ValueError, match="holds '/'"):
        parameters.named(tree)


def test_the_bytes_of_a_file_follow_from_the_names_and_numbers_alone():
    """Whatever the order of the dicts; the bytes are those that versions before wrote."""
    first = {"b": {"kernel": np.ones((2, 3), np.float32)}, "a": {"bias": np.zeros(2, np.float32)}}
    second = dict(reversed(first.items()))
    assert weights.to_safetensors(first) == weights.to_safetensors(second)
    found = hashlib.sha256(weights.to_safetensors(first)).hexdigest()
    assert found == "a31b3198b83798a29e9e4b56582f9fe975191a9b248c2e665c41458d8a11e2b8"

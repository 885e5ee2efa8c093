"""Flags and configs from the command line: small parsers."""

import re
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddgan_jax.cli import arguments, spelling
from ddgan_jax.errors import UserError

# -------------------------------------------------------------------------------- small parsers


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0", [0]),
        ("0-3", [0, 1, 2, 3]),
        ("1,5,10-12", [1, 5, 10, 11, 12]),
        ("7-7, 3", [7, 3]),
        ("2147483647", [2**31 - 1]),
    ],
)
def test_seeds(text, seeds):
    assert arguments.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "1,", "-1", "1-", "a", "1.5", "1--2", "2147483648", "0-3,2"])
def test_seeds_that_are_none(text):
    with pytest.raises(UserError, match=re.escape(f"--seeds={text}: ")):
        arguments.parse_seeds(text)


def test_seeds_are_counted_before_they_are_listed():
    """No range is made into a list that is refused afterwards, and Python reads 4,300 digits."""
    many = ["0-2147483647", "0-10000000", "0-9999999,10000000", "0-" + "9" * 5_000, "9" * 5_000]
    many += [",".join(["0-9999999"] * 100), "0-0," * 1_000 + "0-9999999", "0" * 5_000 + "1,1"]
    tracemalloc.start()
    try:
        for text in many:
            with pytest.raises(UserError) as error:
                arguments.parse_seeds(text)
            assert len(str(error.value)) < 250
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
    with pytest.raises(UserError, match="8 seeds; at most 7 are possible"):
        arguments.parse_seeds("0-7", most=7)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**31 - 40), st.integers(0, 30)), min_size=1, max_size=5))
def test_seeds_are_those_of_their_ranges(ranges):
    text = ",".join(f"{first}-{first + more}" for first, more in ranges)
    expected = [seed for first, more in ranges for seed in range(first, first + more + 1)]
    if len(set(expected)) == len(expected):
        assert arguments.parse_seeds(text) == expected
    else:
        with pytest.raises(UserError, match="is named more than once"):
            arguments.parse_seeds(text)


@settings(deadline=None)
@given(st.text(st.sampled_from("0123456789,- all\x1b\n٣"), max_size=40), st.integers(0, 500))
def test_lists_of_any_text_are_read_or_refused(text, times):
    for part in (text, text * times):
        for parse in (
            arguments.parse_seeds,
            arguments.parse_labels,
            lambda text: arguments.parse_integers("steps", text),
            lambda text: arguments.parse_names("methods", text, ["gan", "ddgan"]),
        ):
            try:
                parse(part)
            except UserError as error:
                assert str(error).isprintable() and len(str(error)) < 300


@pytest.mark.parametrize(
    ("text", "labels"), [("", []), ("all", "all"), ("207", [207]), ("3,1", [3, 1])]
)
def test_labels(text, labels):
    assert arguments.parse_labels(text) == labels


@pytest.mark.parametrize("text", [",", "1,", "-1", "1-3", "cat", "1.5", "ALL", "3,1,3"])
def test_labels_that_are_none(text):
    with pytest.raises(UserError, match=re.escape(f"--labels={text}")):
        arguments.parse_labels(text)


# ------------------------------------------------------------------------------------ spellings

FLAGS = (
    arguments.Flag("num_steps", "N", "", kind="integer"),
    arguments.Flag("licence", "TEXT", ""),
    arguments.Flag("allow_small", "", "", False, "switch"),
)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1000", 1000), ("10_000", 10_000), ("1e3", 1000), ("50k", 50_000), ("0.5M", 500_000)]
    + [("1.2e1", 12), ("1E+2", 100), ("2.50k", 2500), ("0e9", 0), ("2147483.647K", 2**31 - 1)],
)
@pytest.mark.parametrize("separated", [False, True])
def test_integers_are_taken_as_people_write_them(text, number, separated):
    def given(flag):
        return [flag, text] if separated else [f"{flag}={text}"]

    values, _ = arguments.parse_flags("x", FLAGS, given("--num-steps"))
    assert values.num_steps == number
    known = (*arguments.CONFIG_FLAGS, *FLAGS)
    argv = [
        "--config=digits_ddgan",
        *given("--config.train.seed"),
        *given("--config.train.num-steps"),
    ]
    values, overrides = arguments.parse_flags("x", known, argv)
    config = arguments.parse_config(values.config, overrides)
    assert (config.train.seed, config.train.num_steps) == (number, number)


@pytest.mark.parametrize("text", ["1.5", "1.23e1", "1e-3", "1e999", "k", "1m", "1kk", "0x1k", "١k"])
def test_numbers_that_are_not_whole_are_refused(text):
    with pytest.raises(UserError, match=re.escape(f"--num-steps={text} is not an integer")):
        arguments.parse_flags("x", FLAGS, [f"--num_steps={text}"])
    with pytest.raises(UserError, match=re.escape(f"train.seed={text} is not an integer")):
        arguments.parse_config("digits_ddgan", [f"--config.train.seed={text}"])


@given(st.integers(0, 2**31 - 1), st.integers(0, 9))
def test_short_numbers_are_exact(number, exponent):
    """A number written with any exponent is itself, or no number at all: never another one."""
    assert spelling.plain(f"{number}e{exponent}") == str(number * 10**exponent)
    scaled = f"{number // 10**9}.{number % 10**9:09}e9"
    assert spelling.plain(scaled) == str(number)


def test_flags_are_taken_with_hyphens_and_underscores():
    """Values stay as they are, and numbers in the values of other flags too."""
    for name in ("--allow-small", "--allow_small"):
        assert arguments.parse_flags("x", FLAGS, [name])[0].allow_small is True
    for name in ("--licence", "--license"):
        for text in ("a-b_c", "1e3", "--license"):
            assert arguments.parse_flags("x", FLAGS, [f"{name}={text}"])[0].licence == text
    with pytest.raises(UserError, match="unknown flag --alow-small; did you mean --allow-small?"):
        arguments.parse_flags("x", FLAGS, ["--alow_small"])
    with pytest.raises(UserError, match="unknown flag --license"):
        arguments.parse_flags("x", FLAGS[:1], ["--license=x"])

"""Whatever a field holds, validation answers: it accepts or refuses, in little time and memory.

A generator of values that nobody means, in every field of every network, drawn from a seed.
"""

import json
import random
import signal
import tracemalloc
from contextlib import contextmanager

import pytest

from ddgan_jax.config import ConfigDict, checks, from_stored
from ddgan_jax.config.files import from_json, leaves, to_json
from ddgan_jax.errors import UserError
from tests.test_validation import config_with, points_with, siddm_with

pytestmark = pytest.mark.quick

MAKERS = {"ddgan": config_with, "siddm": siddm_with, "points": points_with}
CASES = 700  # of each method and way in
MOST_MEMORY = 16 * 2**20  # bytes that one call may take beside the value
HANGS = 20  # seconds after which a call will not come back


def deep(levels: int) -> dict:
    """A dict in a dict in a dict."""
    tree = {}
    for _ in range(levels):
        tree = {"x": tree}
    return tree


INTEGERS = [0, 1, 2, 3, 7, 31, 2**31 - 1, 2**31, 2**32, 2**63, 10**30, 10**400, 10**5_000]
FLOATS = [0.0, -0.0, 0.5, 1.0, 1e-300, 5e-324, 1e30, 1e308, float("inf"), float("nan")]
STRINGS = ["", "x", "x_0", "none", "\x1b[31m", "a\nb", "\ud800", "\0", "9" * 5_000, "ab" * 10**6]
TUPLES = [
    (),
    (1,) * 10**6,
    (2,) * 32,
    (1,) * 40,
    (10**30,),
    (10**5_000, 1),
    (float("nan"), 1.0),
    (-1, 1),
    ((1,), (2,)),
    ("1",),
    (None,),
    (True,),
]
OTHERS = [None, True, False, {}, {"x": 1}, {1: 2}, deep(5_000), b"x", [1, [2]], [{}], [10**30]]


def wild_value(rng: random.Random):
    """A value of any type: half of them are numbers of all sizes."""
    kind = rng.choice(["integer", "integer", "size", "float", "string", "tuple", "tuple", "other"])
    if kind == "size":
        return int(2 ** rng.uniform(0, 31))
    if kind == "integer":
        return rng.choice(INTEGERS) * rng.choice([1, 1, -1])
    if kind == "float":
        return rng.choice([*FLOATS, 10 ** rng.uniform(-9, 9)]) * rng.choice([1, -1])
    if kind == "tuple":
        sizes = tuple(int(2 ** rng.uniform(0, 12)) for _ in range(rng.randrange(1, 33)))
        return rng.choice([*TUPLES, sizes, sizes[:3]])
    return rng.choice(STRINGS if kind == "string" else OTHERS)


def wild_tree(rng: random.Random, method: str) -> dict:
    """A valid config as a dict, of which one to three fields hold something else."""
    tree = MAKERS[method]().to_dict()
    paths = [path for path, _ in leaves(ConfigDict(tree))]
    for path in rng.sample(paths, rng.randrange(1, 4)):
        section, field = path.split(".")
        tree[section][field] = wild_value(rng)
    if rng.random() < 0.05:
        tree[rng.choice(list(tree))] = wild_value(rng)
    if rng.random() < 0.05:
        tree[rng.choice(["data.name", "x", "", "update", "__class__", 3])] = wild_value(rng)
    if rng.random() < 0.05:
        del tree[rng.choice(list(tree))]
    return tree


@contextmanager
def little_time_and_memory(case: str):
    """Fail if what runs inside takes much memory, or does not end."""

    def hangs(number, frame):
        raise AssertionError(f"{case} does not end")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(HANGS)
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert peak < MOST_MEMORY, f"{case} takes {peak / 2**20:.0f} MiB"


def accepts(call, case: str) -> bool:
    """Whether a call returns; it may raise nothing but a UserError of one printable line."""
    with little_time_and_memory(case):
        try:
            call()
        except UserError as error:
            assert str(error).isprintable() and len(str(error)) < 500, case
            return False
        return True


@pytest.mark.parametrize("method", MAKERS)
def test_any_value_in_any_field_is_accepted_or_refused(method):
    checks.validate(MAKERS[method](), 1)  # imports what it needs
    rng, accepted = random.Random(f"fresh {method}"), 0
    for number in range(CASES):
        try:
            config = ConfigDict(wild_tree(rng, method))
            list(leaves(config))
        except Exception:  # no config file could return this: `load_config` refuses it
            continue
        devices = rng.choice([None, 1, 2, 8, 64])
        case = f"{method} {number}"
        accepted += accepts(lambda c=config, n=devices: checks.validate(c, n), case)
    assert accepted > CASES // 100  # the generator reaches what works as well


@pytest.mark.parametrize("method", MAKERS)
def test_any_stored_tree_is_accepted_or_refused(method):
    rng, accepted = random.Random(f"stored {method}"), 0
    for number in range(CASES):
        tree = wild_tree(rng, method)
        accepted += accepts(lambda t=tree: from_stored(t), f"{method} {number}")
    assert accepted > CASES // 100


@pytest.mark.parametrize("method", MAKERS)
def test_any_damaged_text_is_accepted_or_refused(method):
    """JSON in which bytes, numbers and fields were changed, dropped or repeated."""
    whole = to_json(MAKERS[method]())
    rng = random.Random(f"text {method}")
    pieces = [
        '"',
        "{",
        "[" * 2_000,
        "}",
        ",",
        ":",
        "9" * 5_000,
        "NaN",
        "-Infinity",
        "1e999",
        "null",
    ]
    pieces += ['"name": 1,', '"data": {},', "\\ud800", "\0", "-", "true", '{"a":' * 2_000]
    for number in range(CASES):
        text = whole
        for _ in range(rng.randrange(1, 4)):
            first, last = sorted(rng.choices(range(len(text) + 1), k=2))
            last = min(last, first + rng.choice([0, 1, 4, 100]))
            text = text[:first] + rng.choice(["", *pieces]) + text[last:]
        case = f"{method} {number}"
        accepts(lambda t=text: from_stored(from_json(t).to_dict()), case)


@pytest.mark.parametrize("tree", [None, 3, "x", [], [("data", {})], {}, {"data": []}, deep(3)])
def test_what_is_no_tree_of_sections(tree):
    with pytest.raises(UserError):
        from_stored(tree)


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("objective", "prediction", "x", "objective.prediction='x' is not one of x_0, x_t, noise"),
        ("data", "num_classes", -1, "data.num_classes=-1 must not be negative"),
        ("data", "image_size", 10**30, "must lie between 0 and 2^31 - 1"),
        ("data", "image_size", 9_000, "data.image_size=9000 must be at most 8192"),
        ("generator", "num_res_blocks", 2**31 - 1, "must be at most 100"),
        ("generator", "name", None, "generator.name=None is not one of ncsnpp, wavelet, unet, mlp"),
        ("generator", "channel_multipliers", [1] * 10**6, "has 1,000,000 entries"),
        ("generator", "channel_multipliers", [{}], "is not a tuple such as (1, 2, 2, 2)"),
        ("diffusion", "num_timesteps", 10**9, "must be at most 10000"),
        ("train", "bach_size", 1, "train.bach_size is not a field; did you mean train.batch_size"),
        ("sampling", "chunk_size", 10**400, "… must lie between 0 and 2^31 - 1"),
    ],
)
def test_a_stored_config_passes_the_checks_of_a_fresh_one(section, field, value, message):
    tree = config_with().to_dict()
    tree[section][field] = value
    with pytest.raises(UserError) as error:
        from_stored(tree)
    assert message in str(error.value)


def test_what_training_needs_is_not_asked_of_a_stored_config():
    """Exports have no paths, imports no data set, and some published networks are not defined at 0.

    Fields without effect stay, since old runs have them.
    """
    for changes in (
        dict(data__name="folder"),
        dict(data__name=""),
        dict(generator__time_embedding="fourier"),
        dict(data__image_size=8),
        dict(generator__fir=False, generator__fir_kernel=(1.0, 1.0)),
    ):
        tree = json.loads(to_json(config_with()))
        for name, value in changes.items():
            section, field = name.split("__")
            tree[section][field] = value
        stored = from_stored(tree)
        assert json.loads(to_json(stored)) == json.loads(json.dumps(tree))


def test_a_stored_config_without_newer_fields_gets_their_defaults():
    tree = config_with().to_dict()
    del tree["eval"], tree["train"]["microbatches"], tree["generator"]["latent"]
    assert from_stored(tree).to_dict() == config_with().to_dict()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"data": {}, "data": {}}', "data occurs twice"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": ' + "9" * 5_000 + "}", "is not a config in JSON"),
        ("[" * 10**5, "is not a config in JSON"),
        ('{"a":' * 900 + "1" + "}" * 900, "is not a config in JSON"),
        ('{"a.b": 1}', "is not a config in JSON"),
    ],
)
def test_json_that_no_config_has(text, message):
    with pytest.raises(UserError, match=message):
        from_json(text)

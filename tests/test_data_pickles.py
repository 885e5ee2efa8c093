"""Pickles of arrays without an unpickler: the same values, and nothing else, from any bytes."""

import io
import pickle
import pickletools
import random
import sys
import time
import tracemalloc

import numpy as np
import pytest

from ddgan_jax.data.prepare import pickles

BATCH = {
    "data": np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072),
    "labels": [3, 9],
    "more": np.arange(-3, 3),
    "turned": np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
    "filenames": ["a.png", "ü.png"],
    "bytes": b"\x80\xff",
    "nested": {"a": (1, -(2**70), None, True, 0.5), "b": [[], (), {}]},
}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, np.ndarray):
            assert found[key].dtype == value.dtype
            np.testing.assert_array_equal(found[key], value)
        else:
            assert found[key] == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("pickler", [pickle.Pickler, pickle._Pickler], ids=["C", "Python"])
def test_the_values_are_those_of_an_unpickler(protocol, pickler):
    content = io.BytesIO()
    pickler(content, protocol).dump(BATCH)
    assert_same(pickles.load(content.getvalue()), pickle.loads(content.getvalue()))


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


U1 = Call(np.dtype, "u1", False, True, state=(3, "|", None, None, None, -1, -1, 0))
ARRAY = np.empty(0).__reduce__()[0]


@pytest.mark.parametrize(
    "value",
    [
        Call(np.ndarray, (2,), U1, b"\0\0"),  # the constructor, which takes a buffer
        Call(np.ndarray, (4,), Call(np.dtype, "O8", False, True), b"\x41" * 32),
        Call(np.dtype, "O8", False, True, state=(3, "|", None, None, None, -1, -1, 63)),
        Call(np.dtype, "u1", False, True, state=(3, "|", None, ("a",), {"a": 1}, 8, 1, 0)),
        Call(ARRAY, np.ndarray, (0,), b"b", state=(1, (2**62, 4), U1, False, b"\0" * 8)),
        Call(ARRAY, np.ndarray, (0,), b"b", state=(1, (-1, -8), U1, False, b"\0" * 8)),
        Call(ARRAY, np.ndarray, (0,), b"b", state=(1, (8,), U1, False, [0] * 8)),
        Call(ARRAY, np.ndarray, (0,), b"b", state=(1, (9,), U1, False, b"\0" * 8)),
        Call(ARRAY, np.ndarray, (0,), b"b", state={"shape": (8,)}),
        Call(ARRAY, np.ndarray, (0,), b"b"),  # without content
        Call(ARRAY, Call(np.dtype, "u1"), (0,), b"b"),
        Call(sys.intern, "x"),
        Call(getattr, 1, "real"),
        np.array([1.5]),
        np.array([object()]),
        np.array(["text"]),
        {(1, 2): 3},
        1 + 2j,
        {1, 2},
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_other_forms_of_the_allowed_names_are_refused(value, protocol):
    content = pickle.dumps({"data": value}, protocol)
    with pytest.raises(ValueError, match="."):
        pickles.load(content)


def of_one_hash(k):
    """Return the k-th integer, as pickled, of those that all have the hash 0."""
    return pickle.dumps(k * sys.hash_info.modulus, 2)[2:-1]


def test_what_follows_the_end_is_refused():
    with pytest.raises(ValueError, match="something follows"):
        pickles.load(pickle.dumps({}) * 2)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]q\x00" + b"](h\x00h\x00eq\x00" * 20_000 + b".",  # shared without end
        b"\x80\x02})q\x00" + b"h\x00h\x00\x86q\x00" * 20_000 + b"Ns.",  # and then hashed
        b"\x80\x02]q\x00h\x00a.",  # a list in itself
        b"}q\x00h\x00h\x00s.",
        b"(" * 100_000 + b".",
        b"]" + b"\x85" * 100_000 + b".",
        b"N" * 1_100_000 + b".",
        b"\x80\x02}r\xff\xff\xff\x7f]r\xff\xff\xff\xff0.",  # far places of the memo
        b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.",  # lengths beyond the file
        b"\x80\x04\x8e" + b"\xff" * 8 + b".",
        b"\x80\x04\x95" + b"\xff" * 8 + b".",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"I" + b"9" * 100_000 + b"\n.",
        b"\x80\x02}(" + b"".join(b"%sN" % of_one_hash(k) for k in range(30_000)) + b"u.",
        b"".join(b"Np%d\n" % (k * sys.hash_info.modulus) for k in range(30_000)) + b".",
        # One long text, given to call after call.
        b"c_codecs\nencode\nq\x01(X\x40\x42\x0f\0" + b"a" * 1_000_000 + b"X\6\0\0\0latin1tq\2("
        + b"h\1h\2R" * 1000 + b"t.",
        b"cnumpy\ndtype\nq\1(B\x40\x42\x0f\0" + b"a" * 1_000_000 + b"tq\2("
        + b"h\1h\2R" * 1000 + b"t.",
    ],
)  # fmt: skip
def test_no_program_takes_long_or_much(content):
    start = time.monotonic()
    with_limit(content)
    assert time.monotonic() - start < 60


def with_limit(content):
    """Load, and see to it that memory stays in proportion to the file."""
    tracemalloc.start()
    try:
        return pickles.load(content)
    except Exception as error:
        assert not isinstance(error, MemoryError | RecursionError)
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20 + 400 * min(len(content), pickles.MOST_INSTRUCTIONS) + 4 * len(content)


# ------------------------------------------------------------------------------------ generator


def mutated(rng, seeds):
    """A pickle with bytes changed, cut out, doubled, or exchanged with another's."""
    content = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 6)):
        start = rng.randrange(len(content))
        end = min(len(content), start + rng.randint(1, 12))
        kind = rng.randrange(4)
        if kind == 0:
            content[start] = rng.randrange(256)
        elif kind == 1 and len(content) > 20:
            del content[start:end]
        elif kind == 2:
            content[start:start] = content[start:end] * rng.randint(1, 3)
        else:
            other = rng.choice(seeds)
            place = rng.randrange(len(other))
            content[start:end] = other[place : place + rng.randint(1, 40)]
    return bytes(content)


PIECES = [
    *(op.code.encode("latin1") for op in pickletools.opcodes if not op.arg),
    *(b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"c_codecs\nencode\n"),
    *(b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy._core.numeric\n_frombuffer\n"),
    *(b"X\x02\0\0\0u1", b"U\x02O8", b"X\x01\0\0\0|", b"C\x08" + b"A" * 8, b"K\x00", b"K\x08"),
    *(b"q\x00", b"h\x00", b"q\x01", b"h\x01", b"X\x04\0\0\0data", b"J\xff\xff\xff\xff"),
]


def assembled(rng):
    """A program of pieces that arrays are made of, in any order."""
    return b"".join(rng.choices(PIECES, k=rng.randint(1, 60))) + b"."


@pytest.mark.parametrize("seed", range(4))
def test_any_bytes_give_plain_values_or_an_exception(seed):
    """And the interpreter is never asked for a function or a module."""
    rng = random.Random(seed)
    seeds = [pickle.dumps(BATCH | {"data": BATCH["more"]}, p) for p in range(6)]
    asked = []
    sys.addaudithook(lambda event, _: asked.append(event) if event in WATCHED else None)
    for k in range(500):
        content = mutated(rng, seeds) if k % 2 else assembled(rng)
        value = with_limit(content)
        assert value is None or all(type(key) is str for key in value)
        for item in (value or {}).values():
            assert type(item) in (
                *(dict, list, tuple, int, float, str, bytes, bytearray, bool, type(None)),
                *(np.ndarray, pickles.Name, pickles._DType),
            )
    assert not asked


WATCHED = ("pickle.find_class", "exec", "os.system", "subprocess.Popen", "open", "socket.connect")

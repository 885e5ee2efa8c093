"""A generator of bad files for every reader of the program: seeded, so that each case comes again.

    python -m tests.hostile --cases=20000 --seed=1

Whole files are made once. Each case damages one of them, reads it, and asks that the answer is a
value or one clear line. Damage knows the forms: bytes change anywhere; members of archives change
and are packed again with right checksums; values of JSON become those that nobody expects.
"""

import argparse
import contextlib
import functools
import gzip
import io
import json
import random
import re
import resource
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ddgan_jax.errors import UserError

SECONDS = 20  # within which a case must end
LONGEST_LINE = 1500  # characters of a message
MEMORY = 6 * 2**30  # bytes that the process may take when it runs by itself

Damage = Callable[[random.Random, bytes], bytes]


class Reader(NamedTuple):
    """A file and what reads it. damage: the ways in which it goes bad."""

    name: str
    file: Path
    read: Callable[[], Any]
    damage: tuple[Damage, ...]


class Failure(NamedTuple):
    """A case that ended otherwise than with a value or a line."""

    reader: str
    case: int
    text: str


# ------------------------------------------------------------------------------------- damage

EXTREMES = [b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0" * 8, b"\xff\xff\xff\x7f", b"\x01" + b"\0" * 7]
BEGINNINGS = [
    b"",
    b"\0" * 1000,
    b"PK\x03\x04" + b"\0" * 60,
    b"\x93NUMPY\x01\x00\xff\xff",
    b"\x80\x02]q\x00h\x00a.",
    b"\x80\x04\x96" + b"\xff" * 7 + b"\x7f",
    b"\x1f\x8b\x08" + b"\0" * 20,
    b"\x89PNG\r\n\x1a\n" + b"\0" * 20,
    b"<html>no</html>",
    b"[" * 200_000,
    b'{"a":' * 50_000,
    b"9" * 10_000,
]


def bytes_change(rng: random.Random, content: bytes) -> bytes:
    """Bits, bytes and blocks anywhere: flipped, removed, repeated, or numbers at their ends."""
    result = bytearray(content or b"\0")
    for _ in range(rng.choice([1, 1, 2, 5])):
        at, length = rng.randrange(len(result)), rng.randrange(1, 40)
        match rng.randrange(7):
            case 0:
                result[at] ^= 1 << rng.randrange(8)
            case 1:
                result[at] = rng.randrange(256)
            case 2:
                del result[at : at + length]
            case 3:
                result[at:at] = result[at : at + length]
            case 4:
                extreme = rng.choice(EXTREMES)
                result[at : at + len(extreme)] = extreme
            case 5:
                result[at : at + length] = rng.randbytes(length)
            case 6:
                other = rng.randrange(len(result))
                result[at : at + length] = result[other : other + length]
        result = result or bytearray(b"\0")
    return bytes(result)


def cut(rng: random.Random, content: bytes) -> bytes:
    """The file ends too early."""
    return content[: rng.randrange(len(content) or 1)]


def another_file(rng: random.Random, content: bytes) -> bytes:
    """The file is something else, or begins like it."""
    return rng.choice(BEGINNINGS) + rng.choice([b"", content])


def zip_members_change(rng: random.Random, content: bytes) -> bytes:
    """A member changes and is packed again, with its right checksum, or its name changes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = rng.randrange(len(members))
    name, member = members[at]
    match rng.randrange(6):
        case 0:
            members[at] = (rng.choice(["../x", "/dev/zero", "a/../b", "\n", name + "/"]), member)
        case 1:
            del members[at]
        case 2:
            members.append((name, bytes_change(rng, member)))
        case _:
            damage = rng.choice([bytes_change, bytes_change, cut, another_file])
            members[at] = (name, damage(rng, member))
    out = io.BytesIO()
    packing = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(out, "w", packing) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that come twice
        for name, member in members:
            archive.writestr(zipfile.ZipInfo(name), member, packing)
    return out.getvalue()


def tar_members_change(rng: random.Random, content: bytes) -> bytes:
    """The same of a packed tar file."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = [(info, archive.extractfile(info).read()) for info in archive if info.isfile()]
    out = io.BytesIO()
    at = rng.randrange(len(members))
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for number, (info, member) in enumerate(members):
            if number == at:
                member = rng.choice([bytes_change, bytes_change, cut, another_file])(rng, member)
                info.size = len(member)
                info.type = rng.choice([tarfile.REGTYPE] * 9 + [tarfile.SYMTYPE])
            archive.addfile(info, io.BytesIO(member))
    return out.getvalue()


def gzip_content_changes(rng: random.Random, content: bytes) -> bytes:
    """What is packed changes, and is packed again."""
    return gzip.compress(bytes_change(rng, gzip.decompress(content)), 1)


RAW = "raw:"  # what stands behind it is put into the JSON as it is
WILD = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, 1e-320),
    *("", "x", "x" * 5000, "../../x", "/dev/zero", "/etc/passwd", "\x1b[2J", "\u202e", "\0", "é"),
    *("<script>alert(1)</script>", "](http://x)", "---\n", "__import__('os')", "NaN", "1"),
    *([], {}, [[]], [1] * 5000, {"a": {}}, [None], {"": 0}, ["x"], [[1, 2], [3]]),
    *(f"{RAW}NaN", f"{RAW}-Infinity", f"{RAW}1e999", f"{RAW}{'9' * 400}", f"{RAW}{'9' * 5000}"),
    *(f"{RAW}{'[' * 500}{']' * 500}", f'{RAW}"\\ud800"', f"{RAW}" + '{"a":1,"a":2}'),
]


def _places(tree: Any, path: tuple = ()) -> Iterator[tuple]:
    if path:
        yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _places(value, (*path, key))
    elif isinstance(tree, list):
        for key, value in enumerate(tree[:20]):
            yield from _places(value, (*path, key))


def _changed(rng: random.Random, tree: Any) -> str:
    tree = json.loads(json.dumps(tree))
    places = list(_places(tree))
    if not places or rng.random() < 0.03:
        tree, places = rng.choice(WILD), []
    for path in rng.sample(places, min(len(places), rng.choice([1, 1, 1, 2, 4]))):
        *parents, last = path
        node = tree
        try:
            for key in parents:
                node = node[key]
            match rng.randrange(8) if isinstance(node, dict) else 7:
                case 0:
                    del node[last]
                case 1:
                    node[rng.choice(["zz", "", "../x", "a.b", last + "/x"])] = node[last]
                case _:
                    node[last] = rng.choice(WILD)
        except (KeyError, TypeError, IndexError):  # an earlier change took the place away
            continue
    text = json.dumps(tree)
    return re.sub(rf'"{RAW}((?:[^"\\]|\\.)*)"', lambda m: json.loads(f'"{m[1]}"'), text)


def json_changes(rng: random.Random, content: bytes) -> bytes:
    """Values become wild ones, keys go or come."""
    return _changed(rng, json.loads(content)).encode()


def json_lines_change(rng: random.Random, content: bytes) -> bytes:
    """The same of a line of a log."""
    lines = content.splitlines()
    at = rng.randrange(len(lines))
    lines[at] = _changed(rng, json.loads(lines[at])).encode()
    return b"\n".join(lines) + rng.choice([b"\n", b""])


BINARY = (bytes_change, bytes_change, cut, another_file)
JSON = (json_changes, json_changes, json_changes, json_changes, *BINARY)
LINES = (json_lines_change, json_lines_change, json_lines_change, *BINARY)
ZIP = (zip_members_change, zip_members_change, zip_members_change, *BINARY)
TAR = (tar_members_change, tar_members_change, tar_members_change, *BINARY)


# --------------------------------------------------------------------------------------- cases


class _TooSlow(BaseException):
    """A case that does not end."""


@contextlib.contextmanager
def _limit(seconds: int) -> Iterator[None]:
    def end(*_: object) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run_case(reader: Reader, seed: int, case: int) -> tuple[str, str]:
    """Damage the reader's file, read it and put it back: ("value" | "line" | "fault", why)."""
    rng = random.Random(f"{seed} {reader.name} {case}")
    whole = reader.file.read_bytes()
    try:
        reader.file.write_bytes(rng.choice(reader.damage)(rng, whole))
        sink = io.StringIO()
        with _limit(SECONDS), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            reader.read()
        return "value", ""
    except UserError as error:
        text = str(error)
        clear = text and "\n" not in text and len(text) < LONGEST_LINE
        return ("line", "") if clear else ("fault", f"not one clear line: {text[:300]!r}")
    except _TooSlow:
        return "fault", f"still busy after {SECONDS} s"
    except BaseException:
        return "fault", traceback.format_exc(limit=-4)
    finally:
        reader.file.write_bytes(whole)


def run(
    readers: list[Reader], cases: int, seed: int
) -> tuple[dict[str, Counter[str]], list[Failure], dict[str, float]]:
    """Run so many cases in all, the readers in turn, after each has read its whole file.

    Returns how they ended by reader, the failures, and seconds by reader.
    """
    for reader in readers:
        reader.read()
    ends: dict[str, Counter[str]] = {reader.name: Counter() for reader in readers}
    seconds: dict[str, float] = dict.fromkeys(ends, 0.0)
    failures = []
    for number in range(cases):
        reader = readers[number % len(readers)]
        began = time.monotonic()
        end, why = run_case(reader, seed, number)
        seconds[reader.name] += time.monotonic() - began
        ends[reader.name][end] += 1
        if end == "fault":
            failures.append(Failure(reader.name, number, why))
    return ends, failures, seconds


def main() -> int:
    """Run from a shell; print a table and the failures."""
    from tests.hostile_readers import make_readers

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers whose name contains this")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        readers = [r for r in make_readers(Path(folder)) if options.only in r.name]
        ends, failures, seconds = run(readers, options.cases, options.seed)
    for name, counts in ends.items():
        each = 1000 * seconds[name] / max(counts.total(), 1)
        print(f"{name:<28}{counts['value']:>7} values {counts['line']:>7} lines "
              f"{counts['fault']:>4} faults {each:>8.1f} ms each")  # fmt: skip
    for failure in failures[:20]:
        print(f"\n{failure.reader}, case {failure.case}:\n{failure.text}")
    total = functools.reduce(Counter.__add__, ends.values(), Counter())
    print(f"{options.cases} cases, seed {options.seed}: {dict(total)}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())

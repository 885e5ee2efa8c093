"""Many images to files: every seed once, whatever interrupts, in memory that does not grow."""

import io
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image

from ddgan_jax.errors import BusyError, UserError
from ddgan_jax.files import locks
from ddgan_jax.inference import formats, writers
from ddgan_jax.inference.writers import Job
from ddgan_jax.progress import display
from tests.methods import ROOT

COUNT, CHUNK = 23, 4
FORMATS = ["x.npz", "x.npy", "x.array_record", "x"]
every_format = pytest.mark.parametrize("out", FORMATS)


class Drawing:
    """Images that tell their position; `asked` collects what was drawn."""

    def __init__(self, count=COUNT, fails_after=None, side=2):
        self.count, self.fails_after, self.side, self.asked = count, fails_after, side, []

    def image(self, position):
        return np.full((self.side, self.side, 3), position * 7 % 251, np.uint8)

    def draw(self, positions):
        for number, start in enumerate(range(0, len(positions), CHUNK)):
            if number == self.fails_after:
                raise KeyboardInterrupt
            chunk = positions[start : start + CHUNK]
            self.asked += [int(position) for position in chunk]
            yield np.stack([self.image(position) for position in chunk])

    def job(self, **what):
        return Job(
            what={"model": "a"} | what,
            num_images=self.count,
            names=lambda: [f"{100 + i:06d}" for i in range(self.count)],
            facts={"seeds": np.arange(100, 100 + self.count, dtype=np.uint32)},
            draw=self.draw,
        )


def read(path: Path) -> tuple[list[int], np.ndarray]:
    """Seeds and images of whatever was written."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            return file["seeds"].tolist(), file["images"]
    if path.suffix == ".npy":
        found = np.load(path)
        return list(range(100, 100 + len(found))), found
    if path.suffix == ".array_record":
        reader = ArrayRecordReader(str(path))
        files = [io.BytesIO(record) for record in reader.read_all()]
        reader.close()
        pictures = [Image.open(file) for file in files]
        return [int(picture.text["seeds"]) for picture in pictures], np.stack(pictures)
    files = sorted(path.glob("*.png"))
    return [int(file.stem) for file in files], np.stack([Image.open(file) for file in files])


def check(path, drawing):
    seeds, found = read(path)
    assert seeds == list(range(100, 100 + drawing.count))
    np.testing.assert_array_equal(found, np.stack([drawing.image(i) for i in range(drawing.count)]))


@every_format
def test_every_seed_in_its_place(tmp_path, out):
    drawing = Drawing()
    writers.write(drawing.job(), tmp_path / out)
    check(tmp_path / out, drawing)
    assert drawing.asked == list(range(COUNT))
    assert [path.name for path in tmp_path.iterdir()] == [out]


@every_format
@pytest.mark.parametrize("fails_after", [0, 1, 3, 5])
def test_interrupted_job_goes_on(tmp_path, out, fails_after):
    """What was written is not drawn again, but for nothing that was not."""
    first, second = Drawing(fails_after=fails_after), Drawing()
    with pytest.raises(KeyboardInterrupt):
        writers.write(first.job(), tmp_path / out)
    assert out == "x" or not (tmp_path / out).exists()
    writers.write(second.job(), tmp_path / out)
    check(tmp_path / out, second)
    assert first.asked + second.asked == list(range(COUNT))


@every_format
def test_a_mistake_before_the_first_image_leaves_nothing(tmp_path, out):
    def fail(positions):
        raise UserError("no device")

    with pytest.raises(UserError, match="no device"):
        writers.write(Drawing().job()._replace(draw=fail), tmp_path / out)
    assert not list(tmp_path.iterdir())
    drawing = Drawing(fails_after=2)
    interrupt(drawing.job(), tmp_path / out)
    with pytest.raises(UserError, match="no device"):
        writers.write(drawing.job()._replace(draw=fail), tmp_path / out)
    drawing.fails_after = None
    writers.write(drawing.job(), tmp_path / out)
    assert drawing.asked == list(range(COUNT))  # what was drawn before was kept


@pytest.mark.parametrize("out", ["x.npz", "x"])
def test_killed_process_goes_on(tmp_path, out):
    """A kill of the real thing, at a moment of its own."""
    program = f"""
        import time
        from tests import test_writers
        from ddgan_jax.inference import writers
        drawing = test_writers.Drawing(400)
        def slowly(positions):
            for chunk in drawing.draw(positions):
                time.sleep(0.005)
                yield chunk
        writers.write(drawing.job()._replace(draw=slowly), {str(tmp_path / out)!r})
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT)
    started = tmp_path / (out + ".parts" if "." in out else out)
    while process.poll() is None:
        if started.exists() and len(list(started.iterdir())) > 30:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL
    rest = Drawing(400)
    writers.write(rest.job(), tmp_path / out)
    check(tmp_path / out, rest)
    assert 0 < len(rest.asked) < 400


@pytest.mark.parametrize("out", ["x.npz", "x.npy", "x.array_record"])
def test_killed_while_joining(tmp_path, monkeypatch, out):
    """All parts are there; the half file is written anew, and nothing is drawn."""

    def dies(path, count, facts, chunks):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    whole = formats.FORMATS[f".{out[2:]}"]
    monkeypatch.setitem(formats.FORMATS, f".{out[2:]}", whole._replace(write=dies))
    with pytest.raises(KeyboardInterrupt):
        writers.write(Drawing().job(), tmp_path / out)
    monkeypatch.setitem(formats.FORMATS, f".{out[2:]}", whole)
    again = Drawing()
    writers.write(again.job(), tmp_path / out)
    check(tmp_path / out, again)
    assert again.asked == []


def test_folder_grows(tmp_path):
    """The same model with more seeds goes on in the same folder; what was deleted comes back."""
    writers.write(Drawing(9).job(), tmp_path / "x")
    (tmp_path / "x" / "000103.png").unlink()
    more = Drawing()
    writers.write(more.job(), tmp_path / "x")
    check(tmp_path / "x", more)
    assert more.asked == [3, *range(9, COUNT)]


def interrupt(job, path):
    with pytest.raises(KeyboardInterrupt):
        writers.write(job, path)


@every_format
def test_other_drawings_do_not_mix(tmp_path, out):
    interrupt(Drawing(fails_after=2).job(), tmp_path / out)
    with pytest.raises(UserError, match="holds images of another model, or drawn with other opt"):
        writers.write(Drawing().job(model="b"), tmp_path / out)


def test_other_seeds_do_not_join_the_parts_of_a_file(tmp_path):
    interrupt(Drawing(fails_after=2).job(), tmp_path / "x.npy")
    other = Drawing().job()
    other = other._replace(facts={"seeds": other.facts["seeds"] + 1})
    with pytest.raises(UserError, match="x.npy.parts holds images of another model"):
        writers.write(other, tmp_path / "x.npy")


@pytest.mark.parametrize("out", ["x.npz", "x.npy", "x.array_record"])
def test_finished_file_is_not_replaced(tmp_path, out):
    writers.write(Drawing().job(), tmp_path / out)
    before = (tmp_path / out).read_bytes()
    with pytest.raises(UserError, match="exists already: name another file"):
        writers.write(Drawing().job(model="b"), tmp_path / out)
    assert (tmp_path / out).read_bytes() == before


def test_folder_with_pictures_of_somebody_else(tmp_path):
    (tmp_path / "holiday.png").write_bytes(b"a picture")
    with pytest.raises(UserError, match="holds other images: name another folder"):
        writers.write(Drawing().job(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.png"]


def test_lost_part(tmp_path):
    interrupt(Drawing(fails_after=4).job(), tmp_path / "x.npy")
    sorted((tmp_path / "x.npy.parts").glob("*.npy"))[1].unlink()
    with pytest.raises(UserError, match="x.npy.parts has lost a part before image 8"):
        writers.write(Drawing().job(), tmp_path / "x.npy")


@pytest.mark.parametrize("out", ["x.jpg", "x.pt", "x.tar"])
def test_unknown_ending(tmp_path, out):
    with pytest.raises(UserError, match="name a .png, .npy, .npz, .array_record or a folder, not"):
        writers.write(Drawing().job(), tmp_path / out)


NAMES = ["a[1]", "b*?", "lr0.1", "lr0.2", "10:00:00", "v1.npzip", "with space", "ü"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["", ".npz", ".npy", ".array_record"])
def test_names_are_no_patterns_and_endings_that_say_nothing_belong_to_them(tmp_path, name, form):
    """Beside files of others that a pattern would match."""
    (tmp_path / "a1").mkdir()
    (tmp_path / "a1" / "000100.png").write_bytes(b"of another")
    out = tmp_path / name / f"x{form}" if form else tmp_path / name
    interrupt(Drawing(fails_after=2).job(), out)
    drawing = Drawing()
    writers.write(drawing.job(), out)
    check(out, drawing)
    assert drawing.asked == list(range(2 * CHUNK, COUNT))


@pytest.mark.parametrize("out", ["x.npz/", "x.png/", ".", "sub/..", "sub/."])
def test_folders_by_a_slash_or_dots(tmp_path, monkeypatch, out):
    (tmp_path / "here" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    writers.write(Drawing().job(), out)
    assert len(list(Path(out).glob("*.png"))) == COUNT
    assert not list(tmp_path.rglob("*lock"))


@pytest.mark.parametrize(
    ("out", "make"),
    [
        ("x.npz", Path.mkdir),
        ("x.png", Path.mkdir),
        ("x.npy", os.mkfifo),
        ("x.png", lambda path: path.symlink_to("/dev/null")),
        ("x", Path.touch),
        ("x/y", lambda path: path.parent.touch()),
        ("\0", lambda path: None),
        ("x" * 300, lambda path: None),
        ("", lambda path: None),
        ("/", lambda path: None),
        ("~nobody-of-this-name/x", lambda path: None),
    ],
)
def test_places_where_nothing_can_be_written(tmp_path, monkeypatch, out, make):
    monkeypatch.chdir(tmp_path)
    make(Path(out))
    drawing = Drawing()
    with pytest.raises(UserError) as caught:
        writers.write(drawing.job(), out)
    assert str(caught.value).isprintable() and drawing.asked == []


MARKS = [b"", b"{", b"\xff", b"[" * 100_000, b"5", b"x" * 2**21, None]


@every_format
@pytest.mark.parametrize("mark", MARKS, ids=range(len(MARKS)))
def test_damaged_description(tmp_path, out, mark):
    interrupt(Drawing(fails_after=2).job(), tmp_path / out)
    path = tmp_path / (out if out == "x" else f"{out}.parts") / writers.JOB
    path.unlink()
    if mark is None:
        os.mkfifo(path)
    else:
        path.write_bytes(mark)
    with pytest.raises(UserError) as caught:
        writers.write(Drawing().job(), tmp_path / out)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def npy(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


PARTS = {
    "empty": lambda whole: b"",
    "torn": lambda whole: whole[:-1],
    "text": lambda whole: b"hello",
    "too few": lambda whole: npy(np.zeros((3, 2, 2, 3), np.uint8)),
    "other size": lambda whole: npy(np.zeros((4, 5, 5, 3), np.uint8)),
    "other type": lambda whole: npy(np.zeros((4, 2, 2, 3), np.float32)),
    "a number": lambda whole: npy(np.uint8(3)),
    "objects": lambda whole: npy(np.array([{}] * 4)),
    "archive": lambda whole: zip_of(whole),
}


def zip_of(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", content)
    return file.getvalue()


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("position", [0, 2])
def test_damaged_or_foreign_part(tmp_path, kind, position):
    """It is named before anything more is drawn."""
    interrupt(Drawing(fails_after=4).job(), tmp_path / "x.npz")
    path = sorted((tmp_path / "x.npz.parts").glob("*.npy"))[position]
    path.write_bytes(PARTS[kind](path.read_bytes()))
    drawing = Drawing()
    with pytest.raises(UserError, match=r"x.npz.parts/0000000") as caught:
        writers.write(drawing.job(), tmp_path / "x.npz")
    assert str(caught.value).isprintable() and drawing.asked == []
    assert not (tmp_path / "x.npz").exists()


def test_file_that_is_no_part(tmp_path):
    interrupt(Drawing(fails_after=2).job(), tmp_path / "x.npz")
    (tmp_path / "x.npz.parts" / "mine.npy").write_bytes(npy(np.zeros(3)))
    with pytest.raises(UserError, match="mine.npy is no part of images: move it"):
        writers.write(Drawing().job(), tmp_path / "x.npz")


def test_torn_pictures_are_drawn_again(tmp_path):
    writers.write(Drawing().job(), tmp_path / "x")
    for name, content in (("000101", b""), ("000103", b"\x89PNG")):
        (tmp_path / "x" / f"{name}.png").write_bytes(content)
    again = Drawing()
    writers.write(again.job(), tmp_path / "x")
    check(tmp_path / "x", again)
    assert again.asked == [1, 3]


@every_format
def test_what_is_lost_on_the_way_is_noticed(tmp_path, out):
    """A drawing that yields fewer images than it promised."""
    job = Drawing().job()
    fewer = job._replace(draw=lambda positions: job.draw(positions[:-1]))
    with pytest.raises(UserError, match="could not be written"):
        writers.write(fewer, tmp_path / out)
    assert out == "x" or not (tmp_path / out).exists()
    writers.write(job, tmp_path / out)
    check(tmp_path / out, Drawing())


@every_format
def test_second_writer_is_told(tmp_path, monkeypatch, out):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    drawing = Drawing()
    with locks.only_writer(tmp_path / out), pytest.raises(BusyError, match="another process is"):
        writers.write(drawing.job(), tmp_path / out)
    assert drawing.asked == [] and list(tmp_path.iterdir()) == []


def test_points_are_no_pictures(tmp_path):
    points = np.random.default_rng(0).normal(size=(5, 1, 1, 2)).astype("f4")
    job = Drawing(5).job()._replace(draw=lambda positions: iter([points[positions]]))
    writers.write(job, tmp_path / "x.npz")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["images"], points)
    with pytest.raises(UserError, match="points and no images"):
        writers.write(job, tmp_path / "x")


def smallest_peak(job, folder, out) -> int:
    """Return the bytes at the peak of a job, the smallest of three runs.

    Threads that earlier tests left in this process allocate as well, now and then.
    """
    peaks = []
    for run in range(3):
        tracemalloc.start()
        writers.write(job, folder / str(run) / out)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return min(peaks)


@every_format
def test_memory_does_not_grow(tmp_path, out):
    """Ten times the images in the same memory: a chunk of them has 200 KB, all would have 8 MB."""
    side = 128
    few, many = (
        smallest_peak(Drawing(count, side=side).job(), tmp_path / str(count), out)
        for count in (16, 160)
    )
    assert many < few + 3 * CHUNK * side * side * 3


def test_progress(tmp_path, monkeypatch, capsys):
    """Speed and time left, and where a job goes on."""
    monkeypatch.setattr(display, "SECONDS_BETWEEN_LINES", 0.0)
    interrupt(Drawing(fails_after=3).job(), tmp_path / "x")
    capsys.readouterr()
    clock = itertools.count()
    monkeypatch.setattr(display, "clock", lambda: next(clock))
    writers.write(Drawing().job(), tmp_path / "x")
    start, *lines = capsys.readouterr().err.splitlines()
    assert start == "12 of 23 images are there"
    assert lines[-1].startswith("23 of 23 images  ") and lines[-1].endswith("images/s, 0 s left")

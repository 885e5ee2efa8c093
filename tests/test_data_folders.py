"""Folders and zip files of images: what is found, what is left out, and which class is whose."""

import csv
import io
import json
import os
import random
import zipfile
import zlib

import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ddgan_jax.data import decode, folder_sets, image_folders
from ddgan_jax.data.image_checks import check_all
from ddgan_jax.data.image_folders import open_folder
from ddgan_jax.data.image_layouts import layout_of
from ddgan_jax.data.prepare.prepare import prepare
from ddgan_jax.errors import UserError
from ddgan_jax.evaluation import given


def png(value=0, size=8, form="PNG"):
    content = io.BytesIO()
    Image.new("RGB", (size, size), (value % 256, 7, 9)).save(content, format=form)
    return content.getvalue()


def fill(root, *names, content=None):
    """Write images under these names; the pixels of each are its own."""
    for k, name in enumerate(names):
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(png(k) if content is None else content)
    return root


def zipped(root, path):
    """The same tree as a zip file."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(root))
    return path


def layout(root):
    found = layout_of(open_folder(root))
    return {s: dict(members) for s, members in found.splits.items()}, found.classes, found.skipped


# --------------------------------------------------------------------------- what is found


def test_every_format_that_can_be_decoded_is_found(tmp_path):
    forms = {"a.png": "PNG", "b.JPG": "PNG", "c.jpeg": "JPEG", "d.webp": "WEBP", "e.BMP": "BMP"}
    for name, form in (forms | {"f.gif": "GIF"}).items():
        fill(tmp_path, name, content=png(form=form))
    fill(tmp_path, "g.txt", "h.HEIC", "noending", content=b"no image")
    folder = open_folder(tmp_path)
    assert folder.names == tuple(sorted([*forms, "f.gif"]))
    left_out = image_folders.NO_IMAGE
    assert folder.skipped == {left_out: 1, f"{left_out}: .txt": 1, f"{left_out}: .heic": 1}
    assert {form.shape for form in check_all(folder)} == {(8, 8, 3)}


def test_hidden_names_pipes_and_devices_are_left_out(tmp_path):
    fill(tmp_path, "a.png", ".b.png", ".git/c.png", "d/.e/f.png", "d/g.png")
    os.mkfifo(tmp_path / "h.png")
    os.symlink("/dev/zero", tmp_path / "i.png")
    folder = open_folder(tmp_path)
    assert folder.names == ("a.png", "d/g.png")
    assert folder.skipped == {
        image_folders.HIDDEN: 3,
        image_folders.IRREGULAR: 1,
        image_folders.LINK_OUT: 1,
    }


def test_links_are_followed_inside_the_folder_only_and_end(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    fill(root, ".store/cat/1.png", "dog/2.png")
    fill(outside, "secret.png")
    os.symlink(root / ".store" / "cat", root / "cat")  # a class that lies in a hidden folder
    os.symlink("../dog/2.png", root / "dog" / "3.png")
    for name, target in {
        "a": outside,
        "b.png": outside / "secret.png",
        "c.png": "nowhere",
        "d.png": "d.png",
        "dog/e": root,
        "dog/f": ".",
    }.items():
        os.symlink(target, root / name)
    folder = open_folder(root)
    assert folder.names == ("cat/1.png", "dog/2.png", "dog/3.png")
    assert folder.skipped == {
        image_folders.HIDDEN: 1,
        image_folders.LINK_OUT: 2,
        image_folders.BROKEN_LINK: 2,
        image_folders.LINK_IN_A_CIRCLE: 2,
    }


def test_links_between_folders_do_not_multiply(tmp_path):
    """Each folder links twice to the next one: 2**40 paths, but no more than 41 folders."""
    for k in range(40):
        (tmp_path / f"{k:02d}").mkdir()
    fill(tmp_path, "40/x.png")
    for k in range(40):
        for name in "ab":
            os.symlink(tmp_path / f"{k + 1:02d}", tmp_path / f"{k:02d}" / name)
    names = open_folder(tmp_path).names
    assert "40/x.png" in names and len(names) == 2


def test_a_tree_of_anything(tmp_path):
    """Seeded trees: exactly the files are found of which it is known that they should be."""
    for seed in range(30):
        rng = random.Random(seed)
        root, expected = tmp_path / str(seed), ["0.png"]
        fill(root, "0.png")
        for k in range(rng.randint(0, 25)):
            parts = rng.choices(["a", "b b", "ü", ".h", "00001", "x.png"], k=rng.randint(0, 3))
            folder = root.joinpath(*parts)
            hidden = ".h" in parts
            folder.mkdir(parents=True, exist_ok=True)
            name = folder / f"n{k}{rng.choice(['.png', '.PNG', '.txt', '.png.txt', ''])}"
            match rng.randrange(4):
                case 0:
                    os.mkfifo(name)
                case 1:
                    os.symlink(rng.choice([tmp_path, "/", "/dev/null", "nowhere", name]), name)
                case _:
                    fill(folder, name.name)
                    if not hidden and name.suffix.lower() == ".png":
                        expected.append(str(name.relative_to(root)))
        assert open_folder(root).names == tuple(sorted(expected))


def test_names_of_any_bytes(tmp_path):
    names = (b"\xff\xfe.png", b"a\nb.png", b"\x1b[2J.png")
    fill(tmp_path / "in", *names)
    folder = prepare("mine", data_dir=tmp_path, images=tmp_path / "in")
    source = tfds.builder_from_directory(folder).as_data_source("train")
    assert {example["image/filename"] for example in source} == set(names)
    fill(tmp_path / "in", b"\xff.png", content=b"broken")
    with pytest.raises(UserError) as caught:
        prepare("other", data_dir=tmp_path, images=tmp_path / "in")
    assert r"\xff.png" in str(caught.value) and str(caught.value).isprintable()


def test_all_broken_files_are_named_before_anything_is_written(tmp_path):
    whole = png(size=16)
    fill(tmp_path / "in", *(f"good{k}.png" for k in range(3)))
    for k in range(13):
        fill(tmp_path / "in", f"bad{k:02d}.png", content=(b"", b"text", whole[:60])[k % 3])
    with pytest.raises(UserError) as caught:
        prepare("mine", data_dir=tmp_path / "tfds", images=tmp_path / "in")
    message = str(caught.value)
    assert "13 of 16 images cannot be used" in message and "and 3 more" in message
    assert all(f"bad{k:02d}.png" in message for k in range(10)) and "\n" not in message
    assert not (tmp_path / "tfds").exists()


def test_pixels_are_counted_before_they_are_decoded(tmp_path):
    bomb = bytearray(png())
    bomb[16:24] = (9000).to_bytes(4, "big") * 2  # width and height in the header
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    with pytest.raises(UserError, match="9000 x 9000 pixels, more than 67,108,864"):
        decode.decode(bytes(bomb), 3)


# ------------------------------------------------------------------------ splits and classes


@pytest.mark.parametrize("pack", [False, True], ids=["folder", "zip"])
def test_the_first_folders_are_classes_and_strays_are_left_out(tmp_path, pack):
    root = fill(tmp_path / "in", "cat/1.png", "dog/deep/2.png", "dog/3.png", "stray.png")
    splits, classes, skipped = layout(zipped(root, tmp_path / "in.zip") if pack else root)
    assert classes == ["cat", "dog"] and skipped == {"beside the class folders": 1}
    assert splits == {"train": {"cat/1.png": 0, "dog/3.png": 1, "dog/deep/2.png": 1}}


def test_more_strays_than_images_in_folders_are_no_strays(tmp_path):
    fill(tmp_path, "cat/1.png", "2.png", "3.png")
    with pytest.raises(UserError, match="1 images in sub-folders, .* and 2 beside them"):
        layout(tmp_path)


def test_images_without_folders_have_no_classes(tmp_path):
    assert layout(fill(tmp_path, "b.png", "a.png"))[:2] == (
        {"train": {"a.png": None, "b.png": None}},
        None,
    )


@pytest.mark.parametrize("names", [("train", "val"), ("Train", "test"), ("train",), ("test",)])
def test_split_folders_are_splits(tmp_path, names):
    for name in names:
        fill(tmp_path, f"{name}/cat/1.png", f"{name}/dog/2.png")
    fill(tmp_path, "cover.png")
    splits, classes, skipped = layout(tmp_path)
    assert classes == ["cat", "dog"] and skipped == {"beside the split folders": 1}
    assert {s: list(m.values()) for s, m in splits.items()} == {n.lower(): [0, 1] for n in names}


def test_splits_without_classes(tmp_path):
    splits, classes, _ = layout(fill(tmp_path, "train/1.png", "valid/2.png"))
    assert classes is None and set(splits) == {"train", "valid"}


def test_a_class_that_is_called_test(tmp_path):
    assert layout(fill(tmp_path, "test/1.png", "bus/2.png"))[1] == ["bus", "test"]


def test_a_class_that_is_not_trained_on_is_none(tmp_path):
    fill(tmp_path, "train/cat/1.png", "test/cat/2.png", "test/dog/3.png")
    splits, classes, skipped = layout(tmp_path)
    assert classes == ["cat"] and splits["test"] == {"test/cat/2.png": 0}
    assert skipped == {"of a class without an image to train on": 1}


@pytest.mark.parametrize("name", [" cat", "a\nb", "a\rb", b"\xff", "\u2028"])
def test_names_that_no_class_can_have(tmp_path, name):
    fill(tmp_path, os.path.join(os.fsencode(name), b"1.png"), "dog/2.png")
    with pytest.raises(UserError, match="cannot name a class: rename it") as caught:
        layout(tmp_path)
    assert str(caught.value).isprintable()


SHARDS = [f"{k // 2:05d}/img{k:08d}.png" for k in range(6)]


def stylegan(root, labels):
    fill(root, *SHARDS)
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    return root


@pytest.mark.parametrize("pack", [False, True], ids=["folder", "zip"])
def test_labels_of_stylegan_and_edm_sets_come_from_dataset_json(tmp_path, pack):
    labels = {name: k % 3 for k, name in enumerate(SHARDS)}
    root = stylegan(tmp_path / "in", list(labels.items()))
    path = zipped(root, tmp_path / "in.zip") if pack else root
    assert layout(path)[:2] == ({"train": labels}, 3)
    lines = []
    folder = prepare("mine", data_dir=tmp_path, images=path, report=lines.append)
    assert lines == [
        "images: 6 in train",
        "classes: 3, without names",
        "sizes: 8 pixels on the shorter side; 6 below 32, 6 below 64, 6 below 128, 6 below 256",
    ]
    source = tfds.builder_from_directory(folder).as_data_source("train")
    assert {x["image/filename"].decode(): int(x["label"]) for x in source} == labels
    assert sum(len(chunk) for chunk in given.open_images(path).read()) == 6


def test_shard_folders_are_no_classes(tmp_path):
    no_label = {"train": dict.fromkeys(SHARDS)}
    assert layout(stylegan(tmp_path / "null", None))[:2] == (no_label, None)
    assert layout(fill(tmp_path / "none", *SHARDS))[:2] == (no_label, None)
    digits = fill(tmp_path / "digits", "00000/1.png", "00001/2.png")  # not called img...
    assert layout(digits)[1] == ["00000", "00001"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[n, 0] for n in SHARDS[:5]], "gives no label to 1 of the 6 images, such as 00002/img"),
        ([[n, 0] for n in [*SHARDS, "../x.png"]], "to 1 file that is no image of the set"),
        ([[n, 0] for n in [*SHARDS, SHARDS[0]]], "gives an image two labels"),
        ([[n, k + 1] for k, n in enumerate(SHARDS)], "with labels - 1"),
        ([[n, 10**9 * (k > 0)] for k, n in enumerate(SHARDS)], "and 999,999,989 more"),
        ([[n, 2**31] for n in SHARDS], "Expected `int` <="),
        ([[n, -1] for n in SHARDS], "Expected `int` >= 0"),
        ([[n, 0.5] for n in SHARDS], "Expected `int`"),
        ([[n, True] for n in SHARDS], "Expected `int`"),
        ([[n] for n in SHARDS], "length 2"),
        ({"a": 1}, "Expected `array"),
    ],
)
def test_labels_that_do_not_fit_the_images(tmp_path, labels, message):
    with pytest.raises(UserError, match="dataset.json") as caught:
        layout(stylegan(tmp_path, labels))
    assert message in str(caught.value)


# ----------------------------------------------------------- labels as Hugging Face keeps them


def in_form(form, rows):
    """The rows as metadata.csv or metadata.jsonl, with a column that nobody reads."""
    rows = [row | {"text": 'a "b", c'} for row in rows]
    if form == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows)
    file = io.StringIO()
    table = csv.DictWriter(file, fieldnames=list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    return "\ufeff" + file.getvalue()


@pytest.mark.parametrize("pack", [lambda root, path: root, zipped])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("labels", [("b", "a", "b"), (1, 0, 1)])
def test_labels_of_hugging_face_folders_come_from_metadata(tmp_path, form, labels, pack):
    root = fill(tmp_path / "in", "train/x/1.png", "train/2.png", "train/3.png", "test/1.png")
    names = ("x/1.png", "2.png", "3.png")
    rows = [{"file_name": n, "label": k} for n, k in zip(names, labels, strict=True)]
    (root / "train" / f"metadata.{form}").write_text(in_form(form, rows))
    (root / "test" / f"metadata.{form}").write_text(
        in_form(form, [{"file_name": "1.png", "label": labels[0]}])
    )
    splits, classes, skipped = layout(pack(root, tmp_path / "in.zip"))
    assert classes == (["a", "b"] if labels[0] == "b" else 2) and not skipped
    assert splits == {
        "train": {"train/x/1.png": 1, "train/2.png": 0, "train/3.png": 1},
        "test": {"test/1.png": 1},
    }


def test_marks_of_windows_and_dots_in_paths(tmp_path):
    fill(tmp_path, "1.png", "2.png")
    rows = [{"file_name": f"./{k}.png", "label": k - 1} for k in (1, 2)]
    (tmp_path / "metadata.jsonl").write_text("\ufeff" + "\n".join(map(json.dumps, rows)))
    assert layout(tmp_path)[0] == {"train": {"1.png": 0, "2.png": 1}}


def test_images_that_are_left_out_need_not_be_sound(tmp_path):
    fill(tmp_path / "in", "a/1.png", "b/2.png")
    fill(tmp_path / "in", "stray.png", content=b"broken")
    (tmp_path / "in" / "metadata.csv").mkdir()
    lines = []
    prepare("mine", data_dir=tmp_path, images=tmp_path / "in", report=lines.append)
    assert "1 (beside the class folders), 1 (metadata.csv is a folder)" in lines[2]


def test_captions_are_no_labels(tmp_path):
    fill(tmp_path, "cat/1.png", "dog/2.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\ncat/1.png,a\ndog/2.png,b\n")
    assert layout(tmp_path)[1] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "file_name,label\n1.png,a\n", "no label to 1 of the 2 images, .* 2.png"),
        ("metadata.csv", "file_name,label\n1.png,a\n2.png,\n", "no label to 1 of its 2"),
        ("metadata.csv", "file_name,label\n1.png,a\n1.png,a\n", "1.png a second label"),
        ("metadata.csv", "file_name,label\n1.png,a\n2.png,a\n../x,a\n", "such as ../x"),
        ("metadata.csv", "name,label\n1.png,a\n", "no column file_name"),
        ("metadata.csv", "file_name,label\n1.png\n", "line 2 is no row"),
        ("metadata.csv", "file_name,label\n1.png,a,b\n", "line 2 is no row"),
        ("metadata.csv", 'file_name,label\n"1.png,a\n', "no table in UTF-8"),
        ("metadata.csv", b"file_name,label\n\xff,a\n", "no table in UTF-8"),
        ("metadata.csv", "file_name,label\n" + "1" * 10**6 + ",a\n", "no table in UTF-8"),
        ("metadata.csv", "file_name,label\n1.png,0\n2.png,2\n", "no image has the label 1"),
        ("metadata.jsonl", '{"file_name": "1.png", "label": [1]}', "line 1: Expected"),
        ("metadata.jsonl", '{"label": 1}', "line 1: .*file_name"),
        ("metadata.jsonl", "[" * 10**5, "line 1: Expected"),
        ("metadata.jsonl", '{"file_name": "1.png", "label": 1, "label": 0}', "label twice"),
        ("metadata.csv", "file_name,label,label\n1.png,a,b\n", "column label twice"),
        ("metadata.csv", "file_name,Label\n1.png,a\n", "has a column 'Label'"),
    ],
)
def test_metadata_that_does_not_fit_the_images(tmp_path, name, content, message):
    fill(tmp_path, "1.png", "2.png")
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        layout(tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["metadata.csv", "dataset.json"])
def test_new_labels_make_a_new_copy(tmp_path, name):
    def write(first, second):
        rows = [["1.png", first], ["2.png", second]]
        lines = ["file_name,label", *(f"{n},{k}" for n, k in rows)]
        content = json.dumps({"labels": rows}) if name == "dataset.json" else "\n".join(lines)
        (root / name).write_text(content)
        # Two changes within the clock's resolution would look like one.
        os.utime(root / name, ns=(first, first + 10**9))

    root = fill(tmp_path / "in", "1.png", "2.png")
    write(0, 1)
    before = folder_sets.open_copy(root, tmp_path).folder
    write(1, 0)
    after = folder_sets.open_copy(root, tmp_path).folder
    assert before != after


def test_counts_are_reported(tmp_path):
    fill(tmp_path / "in", *(f"train/{c}/{k}.png" for c in "ab" for k in range(3)), "test/a/x.png")
    fill(tmp_path / "in", "train/s.png", "train/.h.png")
    fill(tmp_path / "in", "train/a/large.png", content=png(size=200))
    fill(tmp_path / "in", "notes.txt", "train/b/bad.jpg.bak")
    lines = []
    prepare("mine", data_dir=tmp_path, images=tmp_path / "in", report=lines.append)
    assert lines == [
        "images: 1 in test, 7 in train",
        "classes: 2, a (5), b (3)",
        "left out: 1 (beside the class folders), 1 (hidden), 1 (not named as an image: .bak), "
        "1 (not named as an image: .txt)",
        "sizes: 8 to 200 pixels on the shorter side, median 8; 7 below 32, 7 below 64, "
        "7 below 128, 8 below 256",
    ]
    builder = tfds.builder_from_directory(tmp_path / "mine" / "1.0.0")
    assert {name: s.num_examples for name, s in builder.info.splits.items()} == {
        "train": 7,
        "test": 1,
    }


# ---------------------------------------------------------------------------------- zip files


def test_entries_of_zips_that_are_no_images(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", png())
        archive.writestr(".b.png", png())
        archive.writestr("../c.png", png())
        archive.writestr("/d.png", png())
        archive.writestr("folder.png/", b"")
        link = zipfile.ZipInfo("e.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    folder = open_folder(tmp_path / "x.zip")
    assert folder.names == ("a.png",)
    assert folder.skipped == {image_folders.HIDDEN: 2, image_folders.IRREGULAR: 2}


def test_two_entries_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive, pytest.warns(UserWarning):
        for k in range(2):
            archive.writestr("a.png", png(k))
    with pytest.raises(UserError, match=r"holds a.png twice"):
        open_folder(tmp_path / "x.zip")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_zips_give_images_or_one_line(tmp_path, seed):
    """Every image that is read at all is the one that was packed: checksums are compared."""
    rng = random.Random(seed)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(3):
            archive.writestr(f"{k:05d}/img{k}.png", png(k))
        archive.writestr("dataset.json", json.dumps({"labels": None}))
    whole = (tmp_path / "x.zip").read_bytes()
    original = {png(k) for k in range(3)}
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 5)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        if rng.random() < 0.2:
            del content[rng.randrange(len(content)) :]
        (tmp_path / "x.zip").write_bytes(content)
        try:
            folder = open_folder(tmp_path / "x.zip")
            layout_of(folder)
            check_all(folder)
            assert {folder.read(name) for name in folder.names} <= original
        except UserError as error:
            assert "\n" not in str(error)


# ------------------------------------------------------------------- copies of data.name=folder


def copies(data_dir):
    return sorted(path.name for path in data_dir.iterdir() if path.name.startswith("folder_"))


def test_a_folder_has_one_copy_which_follows_it(tmp_path):
    root, data_dir = fill(tmp_path / "in", "a.png"), tmp_path / "tfds"
    first = folder_sets.open_copy(root, data_dir)
    assert folder_sets.open_copy(root, data_dir).folder == first.folder
    fill(root, "b.png")
    second = folder_sets.open_copy(root, data_dir)
    assert len(copies(data_dir)) == 2  # the first one is still held
    first.hold.close()
    other = folder_sets.open_copy(fill(tmp_path / "other", "c.png"), data_dir)
    folder_sets.open_copy(root, data_dir)
    assert not first.folder.exists() and second.folder.exists() and other.folder.exists()
    assert len(copies(data_dir)) == 2
    assert not [path for path in data_dir.iterdir() if path.name.startswith(".unfinished")]


def test_a_copy_that_was_removed_is_made_again(tmp_path):
    root, data_dir = fill(tmp_path / "in", "a.png"), tmp_path / "tfds"
    first = folder_sets.open_copy(root, data_dir)
    first.hold.close()
    fill(root, "b.png")
    folder_sets.open_copy(root, data_dir).hold.close()
    os.remove(root / "b.png")
    again = folder_sets.open_copy(root, data_dir)
    assert again.folder == first.folder and (again.folder / "dataset_info.json").is_file()
    assert len(copies(data_dir)) == 1

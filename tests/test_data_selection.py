"""Which examples a run sees: small images, and the part that is held out."""

import numpy as np
import pytest
from PIL import Image

from ddgan_jax.config import base_config
from ddgan_jax.config.files import load_config
from ddgan_jax.data import batches, fingerprint, open_dataset, order, prepared
from ddgan_jax.data.prepare.prepare import prepare
from ddgan_jax.data.selection import chosen_split, whole_split
from ddgan_jax.errors import UserError

SIDES = (6, 8, 20, 7, 9, 8, 31, 5, 12, 40)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Ten photos whose shorter sides are SIDES, and twenty 4 x 4 arrays; each of one colour."""
    root = tmp_path_factory.mktemp("sets")
    photos = root / "photos"
    photos.mkdir()
    for value, side in enumerate(SIDES):
        Image.new("RGB", (side, side + 3), (value, 0, 0)).save(photos / f"{value}.png")
    prepare("photos", data_dir=root, images=photos)
    values = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None, None], (20, 4, 4))
    np.save(root / "small.npy", values)
    prepare("small", data_dir=root, arrays=root / "small.npy")
    return root


def config(data_dir, name="photos", size=8, channels=3, **fields):
    c = base_config()
    c.data.update({"dir": str(data_dir), "name": name, "image_size": size, "channels": channels})
    c.data.update(fields)
    return c


def values(dataset):
    """The colour of each example, which says which one it is."""
    return dataset.read(np.arange(dataset.info.num_examples))[0][:, 0, 0, 0].tolist()


# -------------------------------------------------------------------------------- small images


def test_what_is_known_of_the_sizes_lies_with_the_set(data_dir):
    known = prepared.metadata(data_dir / "photos" / "1.0.0")
    assert (known.smallest_side, known.median_side) == (min(SIDES), int(np.median(SIDES)))


@pytest.mark.parametrize("memory_limit_mib", [0, 4096])
def test_skipping_leaves_exactly_the_large_enough(data_dir, memory_limit_mib):
    lines = []
    fields = config(data_dir, resize="skip", memory_limit_mib=memory_limit_mib)
    left = values(open_dataset(fields, report=lines.append))
    whole = values(open_dataset(config(data_dir, resize="up", memory_limit_mib=memory_limit_mib)))
    assert left == [value for value in whole if SIDES[value] >= 8]
    assert lines == [
        "left out 3 of 10 images of photos: smaller than data.image_size=8 (the smallest has 5 "
        "pixels)"
    ]


def test_batches_of_what_is_left_follow_seed_and_step(data_dir):
    """The order is that of a set which never had the small images."""
    dataset = open_dataset(config(data_dir, resize="skip", memory_limit_mib=0))
    there = values(dataset)
    stream = batches(dataset, batch_size=4, seed=3, start_step=5)
    for step, batch in zip(range(5, 9), stream, strict=False):
        ids = order.example_ids(3, step, 4, len(there))
        assert batch["image"][:, 0, 0, 0].tolist() == [there[id_] for id_ in ids]
    stream.close()


def test_refusing_counts_and_says_what_else_there_is(data_dir):
    with pytest.raises(
        UserError, match=r"3 of 10 images .*image_size=8 .*'up' enlarges them, 'pad' .*, 'skip'"
    ):
        open_dataset(config(data_dir))
    assert len(values(open_dataset(config(data_dir, size=5)))) == 10


@pytest.mark.parametrize("resize", ["refuse", "skip"])
def test_arrays_of_one_size_need_no_look(data_dir, resize, monkeypatch):
    monkeypatch.setattr("ddgan_jax.data.decode.shorter_side", None)
    with pytest.raises(
        UserError, match="20 of 20 images .* has 4 pixels.*'pad' puts black around them$"
    ):
        open_dataset(config(data_dir, "small", channels=1, resize=resize))
    enlarged = open_dataset(config(data_dir, "small", channels=1, resize="up"))
    assert sorted(values(enlarged)) == list(range(20))
    assert enlarged.info.image_size == 8


def test_padding_keeps_small_images_and_their_order(data_dir):
    """Black surrounds 4 x 4 pixels; nothing is done to photos that are large enough."""
    padded, plain = (
        open_dataset(config(data_dir, "small", size, 1, resize=resize))
        for size, resize in ((8, "pad"), (4, "refuse"))
    )
    ids = np.arange(20)
    around = ((0, 0), (2, 2), (2, 2), (0, 0))
    np.testing.assert_array_equal(padded.read(ids)[0], np.pad(plain.read(ids)[0], around))
    photos = [open_dataset(config(data_dir, size=5, resize=r)) for r in ("pad", "refuse")]
    np.testing.assert_array_equal(*(photo.read(np.arange(10))[0] for photo in photos))


def test_mnist_is_padded_as_in_the_stacks(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8)
    np.savez(tmp_path / "mnist.npz", images=pixels, labels=np.arange(30) % 10)
    prepare("mnist", data_dir=tmp_path, arrays=tmp_path / "mnist.npz")
    ours = load_config("mnist_ddgan")
    ours.data.dir = str(tmp_path)
    images, labels = open_dataset(ours).read(np.arange(30))
    stacks = open_dataset(config(tmp_path, "stacked_mnist", 32))
    np.testing.assert_array_equal(images[..., 0], stacks.gray)
    np.testing.assert_array_equal(labels, stacks.digits)


def test_an_image_that_is_smaller_than_its_set_says_is_refused(data_dir, tmp_path):
    path = tmp_path / "photos" / "1.0.0"
    path.parent.mkdir()
    path.symlink_to(data_dir / "photos" / "1.0.0")
    fields = config(tmp_path, resize="skip", size=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "metadata", lambda folder: prepared.Metadata("", 99, 99))
        with pytest.raises(UserError, match=r"less than data\.image_size=8"):
            open_dataset(fields)


# ------------------------------------------------------------------------------- what is held out


@pytest.mark.parametrize(("holdout", "count"), [(0.25, 5), (0.01, 1), (7, 7), (7.0, 7), (0.99, 20)])
def test_the_two_parts_are_the_set(data_dir, holdout, count):
    def part(split, **fields):
        fields = {"size": 4, "channels": 1, "holdout": holdout, "split": split} | fields
        return open_dataset(config(data_dir, "small", **fields))

    if count == 20:
        with pytest.raises(UserError, match="leaves nothing of 20 to train on"):
            part("train")
        return
    kept, held = part("train"), part("train:holdout")
    whole = values(part("train", holdout=0.0))
    assert len(values(held)) == count
    assert sorted(values(kept) + values(held)) == sorted(whole)
    assert len({fingerprint(d) for d in (kept, held, part("train", holdout=0.0))}) == 3
    # A larger share holds out the same examples and others.
    if count < 7:
        assert set(values(held)) < set(values(part("train:holdout", holdout=0.5)))


PINNED = [0, 5, 15, 17]


def test_the_held_out_part_is_the_same_for_ever(data_dir):
    """Results of different versions and machines are compared on it."""
    fields = dict(size=4, channels=1, holdout=4, split="train:holdout")
    held = open_dataset(config(data_dir, "small", **fields))
    whole = values(open_dataset(config(data_dir, "small", size=4, channels=1)))
    assert [whole.index(value) for value in values(held)] == PINNED


def test_small_images_are_left_out_before_a_part_is_held_out(data_dir):
    fields = dict(resize="skip", holdout=2)
    kept = values(open_dataset(config(data_dir, **fields)))
    held = values(open_dataset(config(data_dir, split="train:holdout", **fields)))
    assert sorted(kept + held) == [value for value, side in enumerate(SIDES) if side >= 8]
    assert len(held) == 2


def test_stacked_digits_hold_digits_out(tmp_path):
    pixels = np.broadcast_to(np.arange(30, dtype=np.uint8)[:, None, None], (30, 28, 28))
    np.savez(tmp_path / "mnist.npz", images=pixels, labels=np.arange(30) % 10)
    prepare("mnist", data_dir=tmp_path, arrays=tmp_path / "mnist.npz")

    def digits(**fields):
        dataset = open_dataset(config(tmp_path, "stacked_mnist", 32, **fields))
        pixels, _ = dataset.read(np.arange(dataset.info.num_examples))
        return set(np.unique(pixels[:, 16, 16]))

    kept = digits(holdout=0.2)
    held = digits(holdout=0.2, split="train:holdout")
    assert len(held) == 6 and not kept & held and kept | held == set(range(30))


def test_names_of_the_parts():
    assert chosen_split("", "train[:90%]") == "train[:90%]"
    assert chosen_split("holdout", "train[:90%]") == "train[:90%]:holdout"
    assert chosen_split("holdout", "train:holdout") == "train:holdout"
    assert chosen_split("test", "train") == "test"
    assert whole_split("unlabelled:holdout") == "unlabelled"
    assert whole_split("train[:10%]") == "train[:10%]"


def test_a_part_without_a_share_is_refused(data_dir):
    with pytest.raises(UserError, match=r"data.split='train:holdout' needs data.holdout > 0"):
        open_dataset(config(data_dir, size=4, split="train:holdout"))

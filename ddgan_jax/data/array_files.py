"""Read images, and perhaps their labels, from .npy and .npz files that anybody made.

Names and shapes say which of a file's arrays are meant; where several could be, none is guessed.
The message about an array of another form gives the NumPy expression that converts it.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ddgan_jax.errors import UserError, shown
from ddgan_jax.files import arrays, paths
from ddgan_jax.files.arrays import ArrayFile, Form

# Images that are read at a time.
CHUNK = 256
LARGEST_LABEL = 2**31 - 1
# Classes that a message names.
MOST_NAMED = 10
# How the field's sample files call their arrays: np.savez(file, images, labels).
_UNNAMED, _UNNAMED_LABELS = "arr_0", "arr_1"
# Statistics that lie beside the images in the reference files of guided diffusion.
_STATISTICS = {"mu", "sigma", "mu_s", "sigma_s"}


class ImageArrays(NamedTuple):
    """The images of a file, (n, h, w, c) with c 1 or 3, and int64 labels (n,) or None.

    name: how messages call the array. pixels: uint8 or floats; the array may lie on the disk.
    """

    name: str
    pixels: np.ndarray
    labels: np.ndarray | None


def open_images(path: str | os.PathLike, what: str = "arrays") -> ImageArrays:
    """Return the images of an .npy or .npz file.

    They are the array `images`, an only array, or `arr_0`; labels are `labels`, or `arr_1` beside
    `arr_0`. what: how messages call the path. Raises UserError for a file of another kind,
    for one in which several arrays could be meant, and for arrays of other shapes or types.
    """
    path = paths.user_path(path, what)
    file = arrays.open_arrays(path)
    image_name, label_name = _choose(file)
    where = f"`{image_name}` of {shown(path, 300)}" if image_name else shown(path, 300)
    form = file.forms[image_name]
    _check_form(form, where)
    # Mapped, so that a file larger than memory can be read in parts.
    pixels = file.mapped(image_name)
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    labels = None
    if label_name is not None:
        where_labels = f"`{label_name}` of {shown(path, 300)}"
        _check_label_form(file.forms[label_name], len(pixels), where_labels)
        labels = _labels(file.load(label_name), where_labels)
    return ImageArrays(where, pixels, labels)


def uint8_images(found: ImageArrays) -> np.ndarray:
    """Return the pixels of uint8 images. Raises UserError, with the conversion, for floats."""
    if found.pixels.dtype == np.uint8:
        return found.pixels
    # Floats are not guessed at: a wrong scale would go unnoticed until the images are bad.
    low, high = value_range(found)
    if low < -1 or high > 1:
        how = "np.clip(np.rint(x), 0, 255).astype(np.uint8), if they mean 0 to 255"
    elif low < 0:
        how = "np.rint((x + 1) * 127.5).astype(np.uint8), if they mean [-1, 1]"
    else:
        how = "np.rint(x * 255).astype(np.uint8), if they mean [0, 1]"
    raise UserError(
        f"{found.name} is {found.pixels.dtype} from {low:.4g} to {high:.4g}, and must be uint8: "
        f"convert it with {how}"
    )


def value_range(found: ImageArrays) -> tuple[float, float]:
    """Return the smallest and the largest of float values. Raises UserError if one is not finite.

    Reads all of them, in parts.
    """
    low, high = np.inf, -np.inf
    # The file may be larger than memory.
    for chunk in chunks(found.pixels):
        if not np.isfinite(chunk).all():
            raise UserError(f"{found.name} holds NaN or infinity")
        low, high = min(low, chunk.min()), max(high, chunk.max())
    return float(low), float(high)


def chunks(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the images in order, `CHUNK` at a time, in memory."""
    for start in range(0, len(pixels), CHUNK):
        yield np.asarray(pixels[start : start + CHUNK])


def num_classes(labels: np.ndarray, where: str) -> int:
    """Return the number of classes of int64 labels (N,), N > 0.

    Raises UserError unless every class from 0 up has an image: a network would be trained for a
    class, and asked to draw it, that it has never seen.
    """
    # The fix that the message gives depends on where the gaps are.
    there = np.unique(labels)
    classes = int(there[-1]) + 1
    if len(there) == classes:
        return classes
    # Labels that only begin elsewhere keep their order; others are numbered anew.
    if there[-1] - there[0] + 1 == len(there):
        how = f"labels - {there[0]}"
    else:
        how = "np.unique(labels, return_inverse=True)[1]"
    raise UserError(
        f"{where}: the labels run from {there[0]} to {there[-1]}, and no image has the label "
        f"{missing_classes(labels, classes)}: number the classes from 0 without gaps, with {how}"
    )


def missing_classes(labels: np.ndarray, classes: int) -> str:
    """Return the classes below `classes` that no label names, for a message; "" for none."""
    there = set(np.unique(labels).tolist())
    missing = (k for k in range(classes) if k not in there)
    first = [str(k) for _, k in zip(range(MOST_NAMED), missing, strict=False)]
    more = classes - len(there) - len(first)
    return ", ".join(first) + (f" and {more:,} more" if more > 0 else "")


# ------------------------------------------------------------------------------------ which one


def _choose(file: ArrayFile) -> tuple[str, str | None]:
    """Return the names of the images and of the labels (None: there are none)."""
    # In this order: a clear name, an only array, the names that NumPy gives to unnamed ones.
    names = set(file.forms)
    if "images" in names:
        return "images", "labels" if "labels" in names else None
    if _UNNAMED in names:
        names -= _STATISTICS
    if len(names) == 1:
        return names.pop(), None
    for labels in (_UNNAMED_LABELS, "labels"):
        if names == {_UNNAMED, labels} and _may_be_labels(file, labels):
            return _UNNAMED, labels
    raise UserError(
        f"{shown(file.path, 300)} does not say which of its arrays are the images ({file}): name "
        "them `images`, (N, H, W) or (N, H, W, C), and integers (N,) `labels`"
    )


def _may_be_labels(file: ArrayFile, name: str) -> bool:
    images, labels = file.forms[_UNNAMED], file.forms[name]
    return len(images.shape) >= 3 and labels.shape in (images.shape[:1], (*images.shape[:1], 1))


# ---------------------------------------------------------------------------------------- forms


def _check_form(form: Form, where: str) -> None:
    shape, kind = form.shape, form.dtype.kind
    needs = "it must be uint8 (N, H, W) or (N, H, W, C) with C 1 or 3"
    if kind not in "buif" or len(shape) not in (3, 4) or 0 in shape:
        raise UserError(f"{where} is {shown(form)}: {needs}")
    if len(shape) == 4 and shape[-1] not in (1, 3):
        how = ""
        # PyTorch's tensors have their channels first.
        if shape[1] in (1, 3):
            how = "; if its channels come first, convert it with x.transpose(0, 2, 3, 1)"
        elif shape[-1] == 4:
            how = "; without transparency it is x[..., :3]"
        raise UserError(f"{where} is {shown(form)}: {needs}{how}")
    # A mask of booleans has two values, which stand for black and white.
    if kind == "b":
        raise UserError(f"{where} is {shown(form)}: {needs}; convert it with x * np.uint8(255)")
    if kind in "iu" and form.dtype != np.uint8:
        raise UserError(
            f"{where} is {shown(form)}: {needs}; values from 0 to 255 are converted with "
            "x.astype(np.uint8)"
        )


def _check_label_form(form: Form, count: int, where: str) -> None:
    if form.shape in ((count,), (count, 1)) and form.dtype.kind in "biu":
        return
    how = ""
    if form.dtype.kind == "f" and form.shape in ((count,), (count, 1)):
        how = "; whole numbers are converted with labels.astype(np.int64)"
    elif len(form.shape) == 2 and form.shape[0] == count:
        how = "; one-hot rows are converted with labels.argmax(axis=1)"
    raise UserError(
        f"{where} is {shown(form)}: it must be one integer >= 0 for each of the {count:,} images"
        f"{how}"
    )


def _labels(labels: np.ndarray, where: str) -> np.ndarray:
    """Return labels of any integer type, (N,) or (N, 1), as int64 (N,)."""
    labels = labels.reshape(-1)
    if labels.min() < 0 or labels.max() > LARGEST_LABEL:
        raise UserError(
            f"{where} holds {labels.min()} to {labels.max()}: labels are from 0 to "
            f"{LARGEST_LABEL:,}"
        )
    return labels.astype(np.int64)

"""The FID InceptionV3: every stage against reference numbers, both protocols, the weights' file.

The reference network is filled by a rule (tests/golden/metrics/README.md), so that no weights are
needed. Its seven images have 32 x 32 and 256 x 256 pixels, which are enlarged, and 331 x 317, which
is shrunk and not square; one of each goes through the network in float64, all of them in float32.
"""

import hashlib
import json
import sys
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

from ddgan_jax.errors import UserError
from ddgan_jax.evaluation import inception
from ddgan_jax.interop import inception as interop
from ddgan_jax.interop import pytorch_files
from ddgan_jax.models.inception import InceptionV3, halving_max_pool

FOLDER = Path(__file__).parent / "golden" / "metrics"
GOLDEN = np.load(FOLDER / "inception.npz")
SHAPES = json.loads((FOLDER / "inception_shapes.json").read_text())
NAMES = [str(name) for name in GOLDEN["names"]]
IN_FLOAT64 = [0, 4, 6]  # one of each size
FLOAT64_TOLERANCE, FLOAT32_TOLERANCE = 1e-12, 1e-6
PREFIX = {"tf1": "tf", "pytorch_fid": "ptfid"}

every_protocol = pytest.mark.parametrize("protocol", inception.PROTOCOLS)


def rule_fill(name, shape):
    if name.endswith("num_batches_tracked"):
        return np.zeros((), np.int64)
    z = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("conv.weight"):
        z *= np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith("running_var"):
        z = np.abs(z) + 0.5
    elif name.endswith("bn.weight"):
        z = 1 + 0.1 * z
    else:
        z *= 2048**-0.5 if name == "fc.weight" else 0.1
    return z.astype(np.float32)


@pytest.fixture(scope="module")
def state_dict():
    return {name: rule_fill(name, shape) for name, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def params(state_dict):
    return jax.tree.map(np.float32, interop.import_inception(state_dict))


def relative_l2(ours, reference):
    """Largest relative error of a row, in the Euclidean norm."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    assert ours.shape == reference.shape
    return (np.linalg.norm(ours - reference, axis=-1) / np.linalg.norm(reference, axis=-1)).max()


def image(i):
    return GOLDEN[f"image_{NAMES[i]}"][None]


def test_rule(state_dict):
    """The weights are those that the reference computed with."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        if not name.endswith("num_batches_tracked"):
            digest.update(state_dict[name].tobytes())
    assert digest.hexdigest() == str(GOLDEN["weights_sha256"])


# ---- images to input


@every_protocol
@pytest.mark.parametrize("i", range(len(NAMES)))
def test_resize_reference(protocol, i):
    kind = {"tf1": "tf1", "pytorch_fid": "half"}[protocol]
    with jax.enable_x64(True):
        x = np.asarray(inception.resize(image(i), protocol))[0]
    sampled = GOLDEN[f"resize_{kind}_{NAMES[i]}"]
    np.testing.assert_allclose(x[::13, ::17], sampled, rtol=0, atol=1e-11)
    differences = [np.abs(np.diff(x, axis=axis)).sum() for axis in (0, 1)]
    sums = [x.sum(), np.square(x).sum(), *differences]
    np.testing.assert_allclose(sums, GOLDEN[f"resize_{kind}_sums_{NAMES[i]}"], rtol=1e-11)


@every_protocol
@pytest.mark.parametrize("size", [1, 2, 8, 28, 298, 299, 300, 512])
def test_resize_matrix(protocol, size):
    """Rows of weights in [0, 1] that add to 1; the identity where nothing is to be done."""
    matrix = inception.resize_matrix(protocol, size)
    assert matrix.shape == (299, size)
    assert matrix.min() >= 0
    assert (np.count_nonzero(matrix, axis=1) <= 2).all()
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-15)
    if size == 299:
        np.testing.assert_allclose(matrix, np.eye(299), atol=1e-12)


@every_protocol
def test_input_range_and_gray(protocol):
    """0 is -1; 255 is 127 / 128 or 1. Gray images are RGB ones with equal channels."""
    black_and_white = np.zeros((2, 8, 8, 1), np.uint8)
    black_and_white[1] = 255
    x = np.asarray(inception.preprocess(black_and_white, protocol))
    assert x.shape == (2, 299, 299, 3)
    np.testing.assert_allclose(x[0], -1, rtol=1e-6)
    np.testing.assert_allclose(x[1], {"tf1": 127 / 128, "pytorch_fid": 1}[protocol], rtol=1e-6)
    gray = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1), np.uint8)
    rgb = gray.repeat(3, axis=-1)
    np.testing.assert_array_equal(*(inception.preprocess(i, protocol) for i in (gray, rgb)))


# ---- the network


def stage_outputs(params, x):
    """All named stages: name -> (B, H, W, C), and the network's own results."""
    outputs, captured = InceptionV3().apply({"params": params}, x, capture_intermediates=True)
    units = captured["intermediates"]
    stages = {name: unit["__call__"][0] for name, unit in units.items() if name != "__call__"}
    stages["MaxPool_1"] = halving_max_pool(stages["Conv2d_2b_3x3"])
    stages["MaxPool_2"] = halving_max_pool(stages["Conv2d_4a_3x3"])
    return outputs, stages


@pytest.fixture(scope="module")
def in_float64(state_dict):
    """protocol -> (pool3 and logits, means of stages, stages of the first image)."""

    @jax.jit
    def run(params, x):
        outputs, stages = stage_outputs(params, x)
        maps = {name: stages[str(name)] for name in map(str, GOLDEN["stages"])}
        means = {name: y.mean((1, 2)) for name, y in maps.items()}
        return outputs, means, {name: y[0] for name, y in maps.items()}

    with jax.enable_x64(True):
        params = interop.import_inception(state_dict)
        inputs = {
            protocol: np.concatenate([inception.preprocess(image(i), protocol) for i in IN_FLOAT64])
            for protocol in inception.PROTOCOLS
        }
        return {p: jax.tree.map(np.asarray, run(params, x)) for p, x in inputs.items()}


@every_protocol
def test_features_in_float64(in_float64, state_dict, protocol):
    (pool3, logits), means, _ = in_float64[protocol]
    ours = {
        "64": means["MaxPool_1"],
        "192": means["MaxPool_2"],
        "768": means["Mixed_6e"],
        "2048": pool3,
        "logits_unbiased": logits,
        "logits": logits + state_dict["fc.bias"].astype(np.float64),
    }
    for name, value in ours.items():
        reference = f"{PREFIX[protocol]}_{name}_f64"
        if reference in GOLDEN:
            assert relative_l2(value, GOLDEN[reference][IN_FLOAT64]) < FLOAT64_TOLERANCE, name


@pytest.mark.parametrize("stage", GOLDEN["stages"])
def test_stage_in_float64(in_float64, stage):
    """The first to fail holds the mistake."""
    _, means, first_image = in_float64["tf1"]
    values = first_image[stage]
    h, w, c = values.shape
    assert (c, h, w) == tuple(GOLDEN[f"stage_shape_{stage}"])
    assert relative_l2(means[stage][0], GOLDEN[f"stage_mean_{stage}"]) < FLOAT64_TOLERANCE
    pixel = values[h // 3, 2 * h // 3]
    assert relative_l2(pixel, GOLDEN[f"stage_pix_{stage}"]) < FLOAT64_TOLERANCE


@every_protocol
def test_features_in_float32(params, protocol):
    """The public function, one image size after the other; as near as the reference in float32."""
    sizes = [[0, 1, 2, 3], [4, 5], [6]]
    images = [np.concatenate([image(i) for i in size]) for size in sizes]
    parts = [inception.features(params, x, protocol, batch_size=2) for x in images]
    pool3, logits = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    assert pool3.dtype == logits.dtype == np.float32
    assert relative_l2(pool3, GOLDEN[f"{PREFIX[protocol]}_2048_f64"]) < FLOAT32_TOLERANCE
    if protocol == "tf1":
        assert relative_l2(logits, GOLDEN["tf_logits_unbiased_f64"]) < FLOAT32_TOLERANCE


def test_batches_do_not_matter(params):
    """An image has the same features, bit by bit, in a full batch and in a ragged one."""
    images = np.concatenate([image(i) for i in range(3)])
    together = inception.features(params, images, batch_size=2)
    for i in (1, 2):
        alone = inception.features(params, images[i : i + 1], batch_size=2)
        np.testing.assert_array_equal(alone.pool3[0], together.pool3[i])
        np.testing.assert_array_equal(alone.logits[0], together.logits[i])


@pytest.mark.parametrize(
    ("images", "protocol", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.uint8), "clean", "no protocol 'clean', there are tf1, pytorch"),
        (np.zeros((2, 8, 8, 3), np.float32), "tf1", r"not of float32 \(2, 8, 8, 3\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), "tf1", r"not of uint8 \(2, 3, 8, 8\)"),
        (np.zeros((8, 8, 3), np.uint8), "tf1", r"not of uint8 \(8, 8, 3\)"),
    ],
)
def test_features_refuses(images, protocol, message):
    with pytest.raises(UserError, match=message):
        inception.features({}, images, protocol)


# ---- the weights


def test_published_names(state_dict):
    """Every entry of the published network, but the counters and one bias."""
    unread = {"fc.bias"} | {name for name in SHAPES if name.endswith("num_batches_tracked")}
    expected = {name: tuple(shape) for name, shape in SHAPES.items() if name not in unread}
    assert interop.published_shapes() == expected
    needed = {name: value for name, value in state_dict.items() if name not in unread}
    jax.tree.map(
        np.testing.assert_array_equal, *map(interop.import_inception, (state_dict, needed))
    )


def test_state_dict_of_another_network(state_dict):
    wrong = state_dict | {"AuxLogits.fc.weight": np.zeros((1008, 768))}
    del wrong["Conv2d_1a_3x3.bn.bias"]
    wrong["fc.weight"] = wrong["fc.weight"][:1000]
    with pytest.raises(UserError) as caught:
        interop.import_inception(wrong)
    start, _, listed = str(caught.value).partition(": ")
    assert start == "this state dict is not that of the FID InceptionV3"
    assert listed.split("; ") == [
        "missing Conv2d_1a_3x3.bn.bias",
        "unused AuxLogits.fc.weight",
        "fc.weight has shape (1000, 2048), not (1008, 2048)",
    ]
    with pytest.raises(UserError, match=f"; and {94 * 5 + 1 - 8} more$"):
        interop.import_inception({})


@pytest.fixture(scope="module")
def converted(state_dict, tmp_path_factory):
    """(the state dict's file, ours)."""
    folder = tmp_path_factory.mktemp("weights")
    np.savez(folder / "state_dict.npz", **state_dict)
    interop.convert(folder / "state_dict.npz", folder / "ours.npz")
    return folder / "state_dict.npz", folder / "ours.npz"


def test_converted_file(converted, params):
    source, ours = converted
    weights = interop.load(ours)
    jax.tree.map(np.testing.assert_array_equal, weights.params, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(weights.params)} == {np.dtype(np.float32)}
    assert weights.source_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()


def test_pth(converted, state_dict, tmp_path, monkeypatch):
    """The same weights have the same identity, in whatever file they came."""
    path, out = tmp_path / "published.pth", tmp_path / "ours.npz"
    path.write_bytes(b"weights")
    monkeypatch.setattr(pytorch_files, "load", lambda *file: {(b"weights", path): state_dict}[file])
    sha256 = hashlib.sha256(b"weights").hexdigest()
    interop.convert(path, out, expected_sha256=sha256)
    assert interop.load(out).sha256 == interop.load(converted[1]).sha256
    assert interop.load(out).source_sha256 == sha256


def test_damaged_and_foreign_files(converted, tmp_path):
    source, ours = converted
    damaged, changed, text = (
        tmp_path / name for name in ("damaged.npz", "changed.npz", "text.npz")
    )
    content = bytearray(ours.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    np.savez(changed, **{"fc/kernel": np.zeros((2, 3), np.float32)}, sha256="0", source_sha256="0")
    text.write_text("weights")
    for path, message in (
        (damaged, "damaged.npz is damaged, or no file of arrays .*: fetch https://"),
        (text, "text.npz is no .npy or .npz file of arrays: fetch https://"),
        (changed, "changed.npz is damaged or not converted by us: fetch https://"),
        (source, "state_dict.npz is damaged or not converted by us"),
    ):
        with pytest.raises(UserError, match=message):
            interop.load(path)


def test_weights_that_are_no_numbers(converted, tmp_path):
    """With the right checksum, as somebody would write them who means harm."""
    source, ours = converted
    with np.load(ours) as file:
        arrays = {name: file[name] for name in file.files if "sha256" not in name}
    name = "fc/kernel"
    nan = np.full_like(arrays[name], np.nan)
    for new, message in (
        (nan, "x.npz holds weights that are not finite, in fc/kernel: fetch https://"),
        (nan.astype("U3"), "x.npz is damaged or not converted by us: fetch https://"),
        (np.zeros(nan.shape, bool), "x.npz is damaged or not converted by us: fetch https://"),
    ):
        changed = arrays | {name: new}
        digest = interop._digest(changed) if new.dtype.kind == "f" else "0"
        np.savez(tmp_path / "x.npz", **changed, sha256=digest, source_sha256="0")
        with pytest.raises(UserError, match=message):
            interop.load(tmp_path / "x.npz")
    with np.load(source) as file:
        state_dict = dict(file)
    name = "Conv2d_1a_3x3.bn.running_var"
    for new, message in (
        (np.full_like(state_dict[name], -1.0), "holds weights that are not finite"),
        (state_dict[name].astype("U9"), f"{name} holds no floats"),
    ):
        np.savez(tmp_path / "y.npz", **{**state_dict, name: new})
        with pytest.raises(UserError, match=message):
            interop.convert(tmp_path / "y.npz", tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_missing_file(tmp_path):
    """The message is all that a user needs to get it."""
    for function in (interop.load, lambda path: interop.convert(path, tmp_path / "ours.npz")):
        with pytest.raises(UserError) as caught:
            function(tmp_path / "weights.npz")
        assert str(tmp_path / "weights.npz") in str(caught.value)
        assert interop.INCEPTION_URL in str(caught.value)
        assert str(caught.value).endswith("run: ddgan import inception --from=FILE")


def test_another_file_than_the_published(tmp_path):
    """Of .pth files by default only the published bytes are taken; nothing is written otherwise."""
    (tmp_path / "other.pth").write_bytes(b"weights")
    with pytest.raises(UserError, match=f"SHA-256 is [0-9a-f]*, not {interop.PUBLISHED_SHA256}"):
        interop.convert(tmp_path / "other.pth", tmp_path / "ours.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]


@pytest.mark.parametrize("content", [{"step": 3}, [1, 2], np.zeros(3)])
def test_pth_of_something_else(content, tmp_path, monkeypatch):
    path = tmp_path / "other.pth"
    path.write_bytes(b"weights")
    monkeypatch.setattr(pytorch_files, "load", lambda *_: content)
    with pytest.raises(UserError, match="other.pth holds no state dict of PyTorch$"):
        interop.convert(path, tmp_path / "ours.npz", expected_sha256=None)


def test_a_pth_that_is_none_without_torch(tmp_path, monkeypatch):
    path = tmp_path / "published.pth"
    path.write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="published.pth is damaged, or no file of torch.save"):
        interop.convert(path, tmp_path / "ours.npz", expected_sha256=None)

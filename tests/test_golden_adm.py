"""The ADM U-Net and its importer against numbers of the reference, and laws of the importer.

Every case is computed in float64, where only the order of additions differs, and in float32,
where a small multiple of the reference's own rounding error is allowed. tests/golden/README.md
describes the files.
"""

import argparse
import math

import jax
import numpy as np
import pytest

from ddgan_jax.errors import UserError
from ddgan_jax.interop import adm
from ddgan_jax.models import unet
from tests import golden_cases as golden
from tests.golden import rule_fill

FLOAT64_TOLERANCE = 1e-11  # absolute, of outputs of size 1; 2e-14 is reached
FLOAT32_FACTOR = 4  # times the reference's own largest float32 error
# Of a gradient, relative to its sum of absolute values; the reference's own error is 5e-6.
GRADIENT_FLOAT32_TOLERANCE = 4e-5
# Of a sum of 1536 terms of size 1, many of which cancel.
LOSS_FLOAT32_TOLERANCE = 5e-4

quick = pytest.mark.quick

OUTPUTS = sorted(path.stem for path in (golden.FOLDER / "adm").glob("a0*.npz"))


class Case:
    """One golden file: our config, the official state dict and the inputs."""

    def __init__(self, name):
        self.meta, self.arrays = golden.load(f"adm/{name}")[1:3]
        self.config = adm.config_from_args(self.meta["config"])
        self.labels = self.arrays.get("y")
        size, channels = self.config.image_size, self.config.in_channels
        self.x = self.meta["x_scale"] * self.normal("x", (channels, size, size))

    def normal(self, name, image_shape):
        drawn = rule_fill.normal(self.meta["seed"], name, (self.meta["batch"], *image_shape))
        return drawn.transpose(0, 2, 3, 1).astype(np.float64)

    def state_dict(self, dtype=np.float64):
        keys, shapes = self.arrays["w_keys"].tolist(), self.arrays["w_shapes"]
        return {
            key: rule_fill.weight(self.meta["seed"], key, tuple(shape[shape > 0])).astype(dtype)
            for key, shape in zip(keys, shapes, strict=True)
        }

    def apply(self, params, x, t):
        return unet.from_config(self.config).apply({"params": params}, x, t, self.labels)


# ---- the network


@pytest.mark.parametrize("name", OUTPUTS)
def test_output(name):
    case = Case(name)
    state_dict = case.state_dict()
    sums = [sum(w.sum() for w in state_dict.values())]
    sums += [sum(np.abs(w).sum() for w in state_dict.values())]
    np.testing.assert_allclose(sums, case.arrays["w_check"], rtol=1e-9)
    statistics = golden.tensor_statistics(golden.channels_first(case.x))
    np.testing.assert_allclose([statistics], case.arrays["in_check"], rtol=1e-9)

    params = adm.import_unet(state_dict, case.config)
    for dtype, out in golden.in_both_precisions(case.apply, params, case.x, case.arrays["t"]):
        assert out.dtype == dtype
        float32_tolerance = FLOAT32_FACTOR * case.meta["f32_max_abs_dev"]
        tolerance = FLOAT64_TOLERANCE if dtype == np.float64 else float32_tolerance
        out = golden.channels_first(out)
        np.testing.assert_allclose(out, case.arrays["out"], rtol=0, atol=tolerance)


def test_gradients():
    case = Case("a20_gradients")
    params = adm.import_unet(case.state_dict(), case.config)
    names, positions = adm.unet_names(case.config), official_positions(case)
    size = case.config.image_size
    r = case.normal("r", (case.config.out_channels, size, size))

    def weighted_sum_and_gradients(params, x, t, r):
        def weighted_sum(params, x):
            return (case.apply(params, x, t) * r).sum()

        return jax.value_and_grad(weighted_sum, (0, 1))(params, x)

    inputs = (params, case.x, case.arrays["t"], r)
    for dtype, (loss, (g_params, g_x)) in golden.in_both_precisions(
        weighted_sum_and_gradients, *inputs
    ):
        tolerances = 3 * [FLOAT64_TOLERANCE]
        if dtype == np.float32:
            image_tolerance = FLOAT32_FACTOR * case.meta["f32_max_abs_dev"]["g_dx"]
            tolerances = [LOSS_FLOAT32_TOLERANCE, image_tolerance, GRADIENT_FLOAT32_TOLERANCE]
        np.testing.assert_allclose(loss, case.arrays["g_loss"], rtol=0, atol=tolerances[0])
        g_x = golden.channels_first(g_x)
        np.testing.assert_allclose(g_x, case.arrays["g_dx"], rtol=0, atol=tolerances[1])
        official = official_entries(names, positions, g_params)
        table = zip(case.arrays["g_keys"], case.arrays["g_par"], strict=True)
        for key, row in table:
            difference = golden.tensor_statistics(official[key]) - row
            assert np.abs(difference).max() < tolerances[2] * row[1], key


def official_positions(case):
    """The parameters, but that every entry is its position in the official tensor."""
    numbered = {k: np.arange(w.size).reshape(w.shape) for k, w in case.state_dict().items()}
    return adm.import_unet(numbered, case.config)


def official_entries(names, positions, tree):
    """A tree like our parameters -> official name -> flat tensor in the official order."""
    official = {}
    for name, position, value in zip(
        *(jax.tree.leaves(each) for each in (names, positions, tree)), strict=True
    ):
        official[name] = np.empty(value.size)
        official[name][position.ravel()] = value.ravel()
    return official


# ---- importing weights


@pytest.mark.parametrize("name", [name for name in OUTPUTS if name[:3] not in ("a03", "a09")])
def test_every_entry_arrives_once(name):
    """Names and positions form bijections; values keep dtype and numbers, with a prefix or not."""
    case = Case(name)
    state_dict = case.state_dict(np.float32)
    names, positions = adm.unet_names(case.config), official_positions(case)
    assert sorted(jax.tree.leaves(names)) == sorted(state_dict)
    for tensor in jax.tree.leaves(positions):
        np.testing.assert_array_equal(np.sort(tensor, axis=None), np.arange(tensor.size))
    prefixed = {f"module.{k}" if "weight" in k else k: v for k, v in state_dict.items()}
    params = adm.import_unet(prefixed, case.config)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
    for key, tensor in official_entries(names, positions, params).items():
        np.testing.assert_array_equal(tensor, state_dict[key].ravel(), err_msg=key)


@quick
def test_orders_of_attention():
    """Both official orders of the same layer become the same parameters."""
    case = Case("a01_default")  # 64 channels and 4 heads where it attends
    ours = adm.import_unet(case.state_dict(), case.config)
    reordered = {}
    for key, value in case.state_dict().items():
        if ".qkv." in key:
            heads = [value[48 * head : 48 * (head + 1)] for head in range(4)]
            value = np.concatenate([h[16 * i : 16 * (i + 1)] for i in range(3) for h in heads])
        reordered[key] = value
    config = adm.config_from_args(case.meta["config"] | {"use_new_attention_order": True})
    jax.tree.map(np.testing.assert_array_equal, ours, adm.import_unet(reordered, config))


def problems(state_dict, config):
    with pytest.raises(UserError) as caught:
        adm.import_unet(state_dict, config)
    start, _, listed = str(caught.value).partition(": ")
    assert start == "this state dict is not that U-Net"
    return listed.split("; ")


@quick
def test_missing_unused_and_misshapen_entries():
    """All of them are named, and nothing else."""
    case = Case("a01_default")
    state_dict = case.state_dict(np.float32)
    missing, cut, turned = "out.0.bias", "middle_block.1.qkv.bias", "time_embed.0.weight"
    wrong = state_dict | {"module.extra.weight": np.zeros(3), cut: state_dict[cut][1:]}
    wrong[turned] = state_dict[turned].T
    del wrong[missing]
    assert sorted(problems(wrong, case.config)) == [
        "middle_block.1.qkv.bias has shape (191,), not (192,)",
        "missing out.0.bias",
        "time_embed.0.weight has shape (32, 128), not (128, 32)",
        "unused extra.weight",
    ]


@quick
def test_weights_of_another_network():
    """Many problems at once: the first are named, the others counted."""
    case, other = Case("a01_default"), Case("a02_resblock_updown")
    *listed, rest = problems(other.state_dict(np.float32), case.config)
    assert len(listed) == 8
    assert rest.startswith("and ")


# ---- options


# The flags and the resulting constructor's arguments of the published 64x64 ImageNet model.
FLAGS = {
    "attention_resolutions": "32,16,8",
    "class_cond": True,
    "diffusion_steps": 1000,
    "dropout": 0.1,
    "image_size": 64,
    "learn_sigma": True,
    "noise_schedule": "cosine",
    "num_channels": 192,
    "num_head_channels": 64,
    "num_res_blocks": 3,
    "resblock_updown": True,
    "use_new_attention_order": True,
    "use_fp16": True,
    "use_scale_shift_norm": True,
}
CONSTRUCTOR = {
    "image_size": 64,
    "in_channels": 3,
    "model_channels": 192,
    "out_channels": 6,
    "num_res_blocks": 3,
    "attention_resolutions": (2, 4, 8),
    "dropout": 0.1,
    "channel_mult": (1, 2, 3, 4),
    "num_classes": 1000,
    "use_fp16": True,
    "num_heads": 4,
    "num_head_channels": 64,
    "num_heads_upsample": -1,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
    "use_new_attention_order": True,
}


def test_flags_are_constructor_arguments():
    """Both forms, as mapping and as namespace, are the published network of 296 M parameters."""
    configs = [
        adm.config_from_args(kind(args))
        for args in (FLAGS, CONSTRUCTOR)
        for kind in (dict, lambda args: argparse.Namespace(**args))
    ]
    assert all(config.to_dict() == configs[0].to_dict() for config in configs)
    config = configs[0]
    assert set(config) == {*unet.FIELDS, "in_channels", "attention_order"}
    leaves = jax.tree.leaves(adm.unet_shapes(config))
    assert round(sum(math.prod(leaf.shape) for leaf in leaves) / 1e6) == 296


@quick
@pytest.mark.parametrize(
    ("args", "fields"),
    [
        # The scripts' defaults.
        ({}, {"image_size": 64, "base_channels": 128, "in_channels": 3, "out_channels": 3}),
        ({}, {"channel_multipliers": (1, 2, 3, 4), "num_res_blocks": 2, "dropout": 0.0}),
        ({}, {"attention_resolutions": (16, 8), "num_heads": 4, "head_channels": 0}),
        ({}, {"num_heads_up": 0, "scale_shift_norm": True, "resblock_updown": False}),
        ({}, {"num_classes": 0, "remat_resolutions": (), "attention_order": "legacy"}),
        ({}, {"resample_with_conv": True, "updown_order": "adm"}),
        ({"class_cond": "True"}, {"num_classes": 1000}),
        ({"class_cond": "False"}, {"num_classes": 0}),
        ({"learn_sigma": True}, {"out_channels": 6}),
        ({"channel_mult": "1,1,2"}, {"channel_multipliers": (1, 1, 2)}),
        ({"image_size": 128}, {"channel_multipliers": (1, 1, 2, 3, 4)}),
        ({"image_size": 256}, {"channel_multipliers": (1, 1, 2, 2, 4, 4)}),
        ({"image_size": "512"}, {"channel_multipliers": (0.5, 1, 1, 2, 2, 4, 4)}),
        ({"attention_resolutions": "16"}, {"attention_resolutions": (16,)}),
        ({"use_checkpoint": True}, {"remat_resolutions": (64, 32, 16, 8)}),
        ({"num_heads_upsample": 2}, {"num_heads_up": 2}),
        ({"an_option_of_a_fork": 1}, {"image_size": 64}),
        # The constructor's defaults, rates without a level, and values that it takes as they are.
        (
            CONSTRUCTOR | {"attention_resolutions": [16, 8, 3, 2]},
            {"attention_resolutions": (32, 8)},
        ),
        (CONSTRUCTOR | {"num_classes": None}, {"num_classes": 0}),
        (
            CONSTRUCTOR | {"num_classes": 10, "in_channels": 6},
            {"num_classes": 10, "in_channels": 6},
        ),
    ],
)
def test_options(args, fields):
    config = adm.config_from_args(args)
    assert {name: config[name] for name in fields} == fields


@quick
def test_constructor_defaults():
    required = ["image_size", "in_channels", "model_channels", "out_channels", "num_res_blocks"]
    required += ["attention_resolutions"]
    config = adm.config_from_args({option: CONSTRUCTOR[option] for option in required})
    assert config.channel_multipliers == (1, 2, 4, 8)
    assert (config.num_heads, config.head_channels, config.num_heads_up) == (1, 0, 0)
    assert not config.scale_shift_norm
    for option in set(required) - {"model_channels"}:
        with pytest.raises(UserError, match=f"option {option} is missing"):
            adm.config_from_args({o: CONSTRUCTOR[o] for o in required if o != option})


@quick
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"image_size": "many"}, "option image_size: .*many"),
        ({"image_size": 96}, "option channel_mult: image size 96 has no default"),
        ({"image_size": 36, "channel_mult": "1,1,1,1"}, "image_size=36 cannot be halved 3 times"),
        ({"num_channels": 48}, "base_channels=48: .* into 32 groups"),
        ({"num_heads": 7}, "num_heads=7 does not divide the 384 channels of level 2"),
        ({"channel_mult": "1,two"}, "option channel_mult: .*two"),
        ({"channel_mult": ()}, "option channel_mult: it has 0 entries, not 1 to 32"),
        ({"attention_resolutions": "0"}, "option attention_resolutions: 0 is less than 1"),
        ({"attention_resolutions": 16}, "option attention_resolutions: it is not a sequence"),
        ({"dropout": 1.0}, r"option dropout: 1.0 does not lie in \[0, 1\)"),
        ({"learn_sigma": "maybe"}, "option learn_sigma: 'maybe' is not a boolean"),
        ({"num_head_channels": 0}, "option num_head_channels: 0 is less than 1"),
        ({"dims": 3}, "option dims: only 2 is possible"),
    ],
)
def test_impossible_options(args, message):
    with pytest.raises(UserError, match=message):
        adm.config_from_args(args)

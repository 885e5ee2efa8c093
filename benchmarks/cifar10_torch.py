"""The train step and the sampler of DDGAN on CIFAR-10 in PyTorch: what ours are compared to.

    python -m benchmarks.train_step --config=configs/cifar10_ddgan.py --r1=no \\
        --config.train.batch_size=4 --baseline="python benchmarks/cifar10_torch.py step --batch=4"
    python -m benchmarks.sampler --config=configs/cifar10_ddgan.py --num=4 \\
        --baseline="python benchmarks/cifar10_torch.py sample --batch=4"

Written from the paper and from this project's own networks: parameters have the same names, their
axes PyTorch's order. Needs PyTorch (extra `torch`), and nothing of this package. Eager mode, stock
operations, images (B, C, H, W), FIR filters as depthwise convolutions. A step works in the order of
the published program, which back-propagates D's loss on generated images through G too; --detach
leaves that out. Mirroring images and turning bytes into floats are left to a data loader.
--compute=float32 is what PyTorch makes of it: on a GPU convolutions in TF32, matrix products in
full; "tf32" has it in both; "bfloat16" is torch.autocast. Prints one line of JSON.
"""

import argparse
import functools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

try:
    import torch
except ModuleNotFoundError:
    print("cifar10_torch: there is no PyTorch; install torch", file=sys.stderr)
    raise SystemExit(2) from None
from torch import Tensor
from torch.nn import functional
from torch.optim import swa_utils

BETA_MIN, BETA_MAX = 0.1, 20.0
R1_GAMMA, EMA_DECAY = 0.02, 0.9999
GENERATOR_LEARNING_RATE, DISCRIMINATOR_LEARNING_RATE = 1.6e-4, 1.25e-4
ADAM_BETAS = (0.5, 0.9)


class Sizes(NamedTuple):
    """The fields of configs/cifar10_ddgan.py that say how much there is to compute."""

    image_size: int = 32
    channels: int = 3
    num_timesteps: int = 4
    base_channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 2)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    latent_dim: int = 100
    latent_embedding_dim: int = 256
    latent_layers: int = 4
    discriminator_channels: int = 64
    discriminator_embedding_dim: int = 256


CIFAR10 = Sizes()


class Network(dict[str, Tensor]):
    """Parameters by name, as "down_0_block_0/conv_0/kernel", and the layers that read them.

    One that is not there is drawn when it is first used, as in PyTorch's lazy modules.
    """

    def __init__(self, sizes: Sizes, bfloat16: bool = False):
        super().__init__()
        self.sizes, self.bfloat16 = sizes, bfloat16

    def __call__(self, x: Tensor, *inputs: Tensor) -> Tensor:
        # Around each pass alone: autocast keeps its copies of the parameters until it ends.
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.forward(x, *inputs).to(x.dtype)

    def parameter(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """Return the parameter of that name and shape, of the dtype and device of `like`."""
        if name not in self:
            # As small as ours, since after a few steps on large logits all gradients are zero.
            small = name.endswith(("conv_1/kernel", "output_conv/kernel"))
            gain = 1e-5 if small else float(name.endswith("kernel"))
            mean = float(name.endswith(("scale", "style/bias")))
            std = gain * math.prod(shape[1:]) ** -0.5
            self[name] = like.new_empty(shape).normal_(mean, std).requires_grad_()
        return self[name]

    def dense(self, name: str, x: Tensor, features: int, bias: bool = True) -> Tensor:
        """Apply a linear layer to the channels of (B, C), or, as 1x1 convolution, (B, C, H, W)."""
        kernel = self.parameter(f"{name}/kernel", x, features, x.shape[1])
        offset = self.parameter(f"{name}/bias", x, features) if bias else None
        if x.ndim == 2:
            return functional.linear(x, kernel, offset)
        return functional.conv2d(x, kernel[:, :, None, None], offset)

    def conv(self, name: str, x: Tensor, features: int, stride: int = 1, pad: int = 1) -> Tensor:
        """Apply a 3x3 convolution, (B, C, H, W) -> (B, features, ..)."""
        kernel = self.parameter(f"{name}/kernel", x, features, x.shape[1], 3, 3)
        bias = self.parameter(f"{name}/bias", x, features)
        return functional.conv2d(x, kernel, bias, stride, pad)

    def group_norm(self, name: str, x: Tensor, latent: Tensor | None = None) -> Tensor:
        """Normalise x (B, C, H, W); scale and bias are parameters, or linear in latent (B, Z)."""
        channels, groups = x.shape[1], min(x.shape[1] // 4, 32)
        if latent is None:
            scale, bias = (self.parameter(f"{name}/{s}", x, channels) for s in ("scale", "bias"))
            return functional.group_norm(x, groups, scale, bias, 1e-6)
        style = self.dense(f"{name}/style", latent, 2 * channels)
        # The examples as further groups of a single one: scale and bias in the same pass.
        scale, bias = (part.flatten() for part in style.chunk(2, 1))
        joined = x.flatten(0, 1)[None]
        return functional.group_norm(joined, len(x) * groups, scale, bias, 1e-6).view_as(x)

    def embed_time(self, t: Tensor, like: Tensor, dim: int, width: int, act: Callable) -> Tensor:
        """Return sines and cosines (B, dim) of t (B,) through two layers (B, width), as `like`."""
        half = torch.arange(dim // 2, device=like.device, dtype=like.dtype)
        angles = t[:, None] * torch.exp(half * (-math.log(10_000) / (dim // 2 - 1)))
        h = torch.cat([angles.sin(), angles.cos()], 1)
        for i in range(2):
            h = act(self.dense(f"time_dense_{i}", h, width))
        return h


class Generator(Network):
    """x_{t+1} (B, C, H, W), t (B,), z (B, L) -> x_0 (B, C, H, W)."""

    def forward(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        sizes, base = self.sizes, self.sizes.base_channels
        levels = [base * multiplier for multiplier in sizes.channel_multipliers]
        latent = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        for i in range(sizes.latent_layers + 1):
            h = self.dense(f"latent_mapping/dense_{i}", latent, sizes.latent_embedding_dim)
            latent = functional.silu(h)
        context = self.embed_time(t, x, base, 4 * base, functional.silu), latent

        h, pyramid = self.conv("input_conv", x, base), x
        skips = [h]
        for level, width in enumerate(levels):
            for i in range(sizes.num_res_blocks):
                h = self.block(f"down_{level}_block_{i}", h, width, context)
                h = self.attention(f"down_{level}_attention_{i}", h)
                skips.append(h)
            if level + 1 < len(levels):
                h = self.block(f"down_{level}_downsample", h, width, context, downsample)
                pyramid = self.conv(f"down_{level}_pyramid/conv", blur(pyramid), width, 2, 0)
                h = pyramid = residual_sum(pyramid, h)
                skips.append(h)

        h = self.block("middle_block_0", h, levels[-1], context)
        h = self.attention("middle_attention", h, everywhere=True)
        h = self.block("middle_block_1", h, levels[-1], context)

        for level, width in reversed(list(enumerate(levels))):
            for i in range(sizes.num_res_blocks + 1):
                h = torch.cat([h, skips.pop()], 1)
                h = self.block(f"up_{level}_block_{i}", h, width, context)
            h = self.attention(f"up_{level}_attention", h)
            if level:
                h = self.block(f"up_{level}_upsample", h, width, context, upsample)
        h = functional.silu(self.group_norm("output_norm", h))
        return self.conv("output_conv", h, sizes.channels).to(x.dtype).tanh()

    def block(
        self, name: str, x: Tensor, features: int, context: tuple, resample: Callable | None = None
    ) -> Tensor:
        """Apply a residual block with time and latent: (B, features, ..), resampled."""
        embedding, latent = context
        h = functional.silu(self.group_norm(f"{name}/norm_0", x, latent))
        if resample:
            h, x = resample(h), resample(x)
        h = self.conv(f"{name}/conv_0", h, features)
        h = h + self.dense(f"{name}/time", embedding, features)[:, :, None, None]
        h = functional.silu(self.group_norm(f"{name}/norm_1", h, latent))
        h = self.conv(f"{name}/conv_1", h, features)
        if resample or x.shape[1] != features:
            x = self.dense(f"{name}/shortcut", x, features)
        return residual_sum(x, h)

    def attention(self, name: str, x: Tensor, everywhere: bool = False) -> Tensor:
        """Let each pixel of (B, C, H, W) attend to all, at the resolutions that have attention."""
        c, size = x.shape[1:3]
        if not everywhere and size not in self.sizes.attention_resolutions:
            return x
        h = self.group_norm(f"{name}/norm", x)
        q, k, v = (self.dense(f"{name}/{s}", h, c).flatten(2) for s in ("query", "key", "value"))
        weights = torch.bmm(q.transpose(1, 2) * c**-0.5, k).softmax(2)
        h = torch.bmm(v, weights.transpose(1, 2)).view_as(x)
        return residual_sum(x, self.dense(f"{name}/output", h, c))


class Discriminator(Network):
    """x_t (B, C, H, W), t (B,), x_{t+1} (B, C, H, W) -> logits (B,)."""

    def forward(self, x_t: Tensor, t: Tensor, x_tp1: Tensor) -> Tensor:
        base, width = self.sizes.discriminator_channels, self.sizes.discriminator_embedding_dim
        act = functools.partial(functional.leaky_relu, negative_slope=0.2)
        embedding = self.embed_time(t, x_t, width, width, act)
        x = self.dense("input_conv", torch.cat([x_t, x_tp1], 1), 2 * base)
        for i, multiplier in enumerate((2, 4, 8, 8)):
            name, features = f"block_{i}", base * multiplier
            h = self.conv(f"{name}/conv_0", act(x), features)
            h = act(h + self.dense(f"{name}/time", embedding, features)[:, :, None, None])
            if i:
                h, x = downsample(h), downsample(x)
            h = self.conv(f"{name}/conv_1", h, features)
            x = residual_sum(self.dense(f"{name}/shortcut", x, features, bias=False), h)
        h = self.conv("output_conv", torch.cat([x, minibatch_stddev(x)], 1), 8 * base)
        return self.dense("output", act(h).sum((2, 3)), 1)[:, 0]


def residual_sum(x: Tensor, h: Tensor) -> Tensor:
    """Return (x + h) / sqrt(2), of one shape."""
    return (x + h).mul_(math.sqrt(0.5))


@functools.cache
def fir_kernel(channels: int, gain: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the filter (1, 3, 3, 1) / 8 of both axes, times `gain`: (channels, 1, 4, 4)."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=device, dtype=dtype) / 8
    return (gain * torch.outer(taps, taps)).repeat(channels, 1, 1, 1)


def fir(convolve: Callable, gain: int, stride: int, padding: int, x: Tensor) -> Tensor:
    """Filter x (B, C, H, W) channel by channel."""
    kernel = fir_kernel(x.shape[1], gain, x.device, x.dtype)
    return convolve(x, kernel, None, stride, padding, groups=x.shape[1])


blur = functools.partial(fir, functional.conv2d, 1, 1, 2)
downsample = functools.partial(fir, functional.conv2d, 1, 2, 1)
upsample = functools.partial(fir, functional.conv_transpose2d, 4, 2, 1)


def minibatch_stddev(x: Tensor) -> Tensor:
    """Return how much four images at stride B / 4 differ, as a channel (B, 1, H, W)."""
    b, c, h, w = x.shape
    n = min(b, 4)
    stddev = x.view(n, b // n, c, h, w).var(0, unbiased=False).add(1e-8).sqrt().mean((1, 2, 3))
    return stddev.repeat(n).view(b, 1, 1, 1).expand(b, 1, h, w)


Tensors = dict[str, Tensor]


def variance_preserving(num_timesteps: int) -> Tensors:
    """Return the coefficients of the steps between t and t + 1 of DDGAN, float64 (T,)."""
    s = torch.linspace(1e-3, 1, num_timesteps + 1, dtype=torch.float64)
    left = torch.exp(-s.square() * (BETA_MAX - BETA_MIN) / 2 - s * BETA_MIN)
    alpha, before, after = left[1:] / left[:-1], left[:-1] / left[0], left[1:] / left[0]
    return {
        "signal": before.sqrt(),
        "noise": (1 - before).sqrt(),
        "step_signal": alpha.sqrt(),
        "step_noise": (1 - alpha).sqrt(),
        "posterior_x_0": (1 - alpha) * before.sqrt() / (1 - after),
        "posterior_x_tp1": alpha.sqrt() * (1 - before) / (1 - after),
        "posterior_std": ((1 - alpha) * (1 - before) / (1 - after)).sqrt(),
    }


def mix(schedule: Tensors, t: Tensor, **images: Tensor) -> Tensor:
    """Return the sum of the images (B, C, H, W), each times its coefficient at t (B,)."""
    return sum(schedule[name][t].view(-1, 1, 1, 1) * x for name, x in images.items())


def denoised(schedule: Tensors, t: Tensor, x_0: Tensor, x_tp1: Tensor, noise: Tensor) -> Tensor:
    """Draw from q(x_t | x_{t+1}, x_0) for t (B,); images and noise (B, C, H, W)."""
    return mix(schedule, t, posterior_x_0=x_0, posterior_x_tp1=x_tp1, posterior_std=noise)


@torch.no_grad()
def sample(g: Generator, schedule: Tensors, x: Tensor, z: Tensor, noise: Tensor) -> Tensor:
    """Return images from x_T. z (T, B, L), noise (T, B, C, H, W): the noisiest step first."""
    for t, z_t, noise_t in zip(reversed(range(len(z))), z, noise, strict=True):
        times = torch.full((len(x),), t, device=x.device)
        x = denoised(schedule, times, g(x, times, z_t), x, noise_t)
    return x


def draw(sizes: Sizes, x_0: Tensor) -> Tensors:
    """Draw all randomness of one network's update, for these images."""
    noise = {name: torch.randn_like(x_0) for name in ("noise_t", "noise_tp1", "noise_posterior")}
    t = torch.randint(sizes.num_timesteps, (len(x_0),), device=x_0.device)
    return noise | {"t": t, "z": x_0.new_empty(len(x_0), sizes.latent_dim).normal_()}


class Trainer:
    """Both networks with all that a step changes."""

    def __init__(self, generator: Generator, discriminator: Discriminator, schedule: Tensors):
        self.generator, self.discriminator, self.schedule = generator, discriminator, schedule
        adam = functools.partial(torch.optim.Adam, betas=ADAM_BETAS)
        self.generator_adam = adam(generator.values(), GENERATOR_LEARNING_RATE)
        self.discriminator_adam = adam(discriminator.values(), DISCRIMINATOR_LEARNING_RATE)
        self.average: list[Tensor] = []  # moving, of the generator's parameters
        self.update_average = swa_utils.get_ema_multi_avg_fn(EMA_DECAY)

    def step(self, x_0: Tensor, for_d: Tensors, for_g: Tensors, r1: bool, detach: bool) -> Tensors:
        """Do one step on x_0 in [-1, 1] with these draws; return the terms of the losses."""
        terms = {}
        self.discriminator_adam.zero_grad()
        x_t, x_tp1 = self.noised(x_0, for_d)
        x_t.requires_grad_(r1)
        logits = self.discriminator(x_t, for_d["t"], x_tp1)
        terms["d_loss_real"] = functional.softplus(-logits).mean()
        terms["d_loss_real"].backward(retain_graph=r1)
        if r1:
            (gradient,) = torch.autograd.grad(logits.sum(), x_t, create_graph=True)
            terms["r1"] = R1_GAMMA / 2 * gradient.square().sum((1, 2, 3)).mean()
            terms["r1"].backward()
        with torch.set_grad_enabled(not detach):
            fake = self.fake(x_tp1, for_d)
        logits = self.discriminator(fake, for_d["t"], x_tp1)
        terms["d_loss_fake"] = functional.softplus(logits).mean()
        terms["d_loss_fake"].backward()
        self.discriminator_adam.step()

        parameters = list(self.generator.values())
        self.generator_adam.zero_grad()
        _, x_tp1 = self.noised(x_0, for_g)
        logits = self.discriminator(self.fake(x_tp1, for_g), for_g["t"], x_tp1)
        terms["g_loss"] = functional.softplus(-logits).mean()
        terms["g_loss"].backward(inputs=parameters)
        self.generator_adam.step()
        if not self.average:  # it begins after the first update
            self.average = [value.detach().clone() for value in parameters]
        self.update_average(self.average, parameters, None)
        return {name: term.detach() for name, term in terms.items()}

    def noised(self, x_0: Tensor, draws: Tensors) -> tuple[Tensor, Tensor]:
        """Return x_t and x_{t+1}, of the shape of x_0."""
        x_t = mix(self.schedule, draws["t"], signal=x_0, noise=draws["noise_t"])
        return x_t, mix(self.schedule, draws["t"], step_signal=x_t, step_noise=draws["noise_tp1"])

    def fake(self, x_tp1: Tensor, draws: Tensors) -> Tensor:
        """Return the generator's x_t."""
        x_0 = self.generator(x_tp1, draws["t"], draws["z"])
        return denoised(self.schedule, draws["t"], x_0, x_tp1, draws["noise_posterior"])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments; end with one line and exit code 2 if they cannot be obeyed."""
    parser = argparse.ArgumentParser(
        prog="cifar10_torch", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("what", choices=("step", "sample"), help="a train step, or the images of a batch")
    add("--batch", type=int, default=4, metavar="N", help="images (4)")
    add("--r1", action="store_true", help="the step computes the R1 penalty")
    add("--detach", action="store_true", help="D's loss does not go through G")
    add("--calls", type=int, default=3, metavar="N", help="timed, after the warm-up (3)")
    add("--threads", type=int, default=torch.get_num_threads(), metavar="N", help="of the CPU")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where it runs (cpu)")
    add("--compute", choices=("float32", "tf32", "bfloat16"), default="float32", help="see above")
    args = parser.parse_args(argv)
    if args.batch % min(max(args.batch, 1), 4) or min(args.batch, args.calls, args.threads) < 1:
        parser.exit(2, "cifar10_torch: N is at least 1, and above 4 images a multiple of 4\n")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "cifar10_torch: --device=cuda: PyTorch finds no GPU\n")
    return args


def main(argv: Sequence[str] | None = None, sizes: Sizes = CIFAR10) -> None:
    """Print the medians over the calls."""
    args = parse(argv)
    torch.set_flush_denormal(True)  # as XLA does, before there are further threads
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = args.compute == "tf32"
    half = args.compute == "bfloat16"
    generator, discriminator = Generator(sizes, half), Discriminator(sizes, half)
    shape = (args.batch, sizes.channels, sizes.image_size, sizes.image_size)
    x_0 = 2 * torch.rand(shape, device=args.device) - 1
    with torch.no_grad():  # the first use makes the parameters
        generator(x_0, x_0[:, 0, 0, 0], draw(sizes, x_0)["z"])
        discriminator(x_0, x_0[:, 0, 0, 0], x_0)
    schedule = variance_preserving(sizes.num_timesteps)
    schedule = {name: table.to(args.device, torch.float32) for name, table in schedule.items()}
    trainer = Trainer(generator, discriminator, schedule)

    def call() -> None:
        if args.what == "step":
            trainer.step(x_0, draw(sizes, x_0), draw(sizes, x_0), args.r1, args.detach)
        else:
            z = x_0.new_empty(sizes.num_timesteps, args.batch, sizes.latent_dim).normal_()
            noise = x_0.new_empty(sizes.num_timesteps, *shape).normal_()
            sample(generator, schedule, torch.randn_like(x_0), z, noise)
        if args.device == "cuda":
            torch.cuda.synchronize()

    times, warm_up = [], 3 if args.device == "cuda" else 1  # cuDNN chooses its algorithms there
    for _ in range(warm_up + args.calls):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = map(statistics.median, zip(*times[warm_up:], strict=True))
    seconds = {"seconds_per_image": wall / args.batch, "cpu_seconds_per_image": cpu / args.batch}
    print(json.dumps(vars(args) | {"torch": torch.__version__} | seconds))


if __name__ == "__main__":
    main()

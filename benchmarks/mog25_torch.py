"""Time the SIDDM loop of the 25 Gaussians in PyTorch, operation by operation, as a baseline.

    python -m benchmarks.mog25 --config=configs/mog25.py:siddm --config.train.batch_size=512 \\
        --baseline="python benchmarks/mog25_torch.py 512"

Written from the paper's description with the networks, optimisers and draws of
`configs/mog25.py:siddm`: two MLPs, Adam, one thread. Needs PyTorch (extra `torch`), and nothing of
this package, so any Python that has PyTorch will do. Prints one line of JSON.
"""

import json
import math
import sys
import time

import torch
from torch import nn
from torch.nn import functional

STEPS = 4  # denoising steps, T
WARM_UP = 10  # iterations


class Network(nn.Module):
    """Linear layers over [x, time embedding, more]; `join`: x enters once more at the end."""

    def __init__(self, more: int, hidden: int, join: bool):
        super().__init__()
        self.time = nn.ModuleList([nn.Linear(128, 128), nn.Linear(128, 128)])
        widths = [2 + 128 + more, *[100] * hidden]
        self.layers = nn.ModuleList(map(nn.Linear, widths[:-1], widths[1:]))
        self.output = nn.Linear(100, 2)
        self.join = nn.Linear(4, 2) if join else None
        self.register_buffer("rates", torch.exp(-torch.arange(64) * math.log(1e4) / 63))

    def forward(self, x: torch.Tensor, t: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        angles = 1000 * t * self.rates
        time_features = torch.cat([angles.sin(), angles.cos()], 1)
        for layer in self.time:
            time_features = functional.leaky_relu(layer(time_features), 0.2)
        h = torch.cat([x, time_features, *more], 1)
        for layer in self.layers:
            h = functional.silu(layer(h))
        h = self.output(h)
        return self.join(torch.cat([h, x], 1)) if self.join else h


def signal(t: torch.Tensor) -> torch.Tensor:
    """Return the share of the signal's variance at t in [0, 1]: the cosine schedule."""
    phase = (t + 0.008) / 1.008 * math.pi / 2
    return (torch.cos(phase) / math.cos(0.008 / 1.008 * math.pi / 2)).square().clamp(1e-5, 1)


class Pair:
    """x_s and x_t of the same images, t uniform and s = max(t - 1 / T, 0), and the step back."""

    def __init__(self, x_0: torch.Tensor):
        self.t = torch.rand(len(x_0), 1)
        self.s = (self.t - 1 / STEPS).clamp(0)
        self.at_s, at_t = signal(self.s), signal(self.t)
        self.ratio = at_t / self.at_s
        self.beta = (1 - self.ratio).clamp(1e-8)
        self.left = (1 - at_t).clamp(1e-8)
        self.x_s = self.at_s.sqrt() * x_0 + (1 - self.at_s).sqrt() * torch.randn_like(x_0)
        self.x_t = self.noised(self.x_s)

    def noised(self, x_s: torch.Tensor) -> torch.Tensor:
        return self.ratio.sqrt() * x_s + self.beta.sqrt() * torch.randn_like(x_s)

    def denoised(self, x_0: torch.Tensor) -> torch.Tensor:
        """Draw from q(x_s | x_t, x_0)."""
        kept = self.ratio.sqrt() * (1 - self.at_s) / self.left
        mean = self.at_s.sqrt() * self.beta / self.left * x_0 + kept * self.x_t
        deviation = (self.beta * (1 - self.at_s) / self.left).sqrt()
        return mean + deviation * torch.randn_like(x_0)


def main() -> None:
    """Time the loop. Arguments: batch size, iterations (200), threads (1)."""
    batch, iterations, threads = (*map(int, sys.argv[1:]), *(512, 200, 1)[len(sys.argv) - 1 :])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    axis = 5.0 * torch.arange(5)
    centres = torch.cartesian_prod(axis, axis).repeat_interleave(10_000, 0)
    data = centres + (torch.randn_like(centres) / 3).clamp(-1, 1)
    g, d = Network(2, 3, join=True), Network(0, 4, join=False)
    g_adam = torch.optim.Adam(g.parameters(), 1e-4, (0.5, 0.999))
    d_adam = torch.optim.Adam(d.parameters(), 4e-4, (0.5, 0.999))

    def step() -> None:
        x_0 = data[torch.randint(len(data), (batch,))]
        pair = Pair(x_0)
        # The discriminator's loss needs no gradient of the generator.
        with torch.no_grad():
            fake = pair.denoised(g(pair.x_t, pair.t, torch.rand(batch, 2)))
        real, generated = d(pair.x_s, pair.s), d(fake, pair.s)
        loss = functional.softplus(-real).mean() + functional.softplus(generated).mean()
        d_adam.zero_grad()
        loss.backward()
        d_adam.step()

        pair = Pair(x_0)
        fake = pair.denoised(g(pair.x_t, pair.t, torch.rand(batch, 2)))
        # AFD as a cross entropy: the fake, noised again, is compared with the real x_t.
        forward_diffusion = (pair.noised(fake) - pair.x_t).square().mean()
        loss = functional.softplus(-d(fake, pair.s)).mean() + forward_diffusion
        g_adam.zero_grad()
        loss.backward()
        g_adam.step()

    for _ in range(WARM_UP):
        step()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(iterations):
        step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    points = iterations * batch
    print(json.dumps({"seconds_per_image": wall / points, "cpu_seconds_per_image": cpu / points}))


if __name__ == "__main__":
    main()

"""Denoising diffusion GANs in JAX: train on every accelerator of a pod, sample in four steps."""

__version__ = "0.1.0"

"""Configs that ship with the package: `from ddgan_jax.configs import cifar10_ddgan`."""

"""Place values on devices and map a step over them. Nothing else knows devices.

A step is written for one device. Here it is mapped over all of them. The state is replicated (an
ordinary array without a leading device axis) or, as far as it may be, sharded. The batch is sharded
along its first axis. Inside the step the devices are the axis AXIS.

On several hosts each process feeds its own devices and holds its own copies; `devices` is always
the list of all devices of the job, in the same order on every process.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from ddgan_jax import compiler
from ddgan_jax.errors import BusyError, UserError, reason
from ddgan_jax.state import Batch, Metrics, PyTree, TrainState, may_be_sharded

AXIS = "data"  # the name of the devices inside a step
Device = Any  # a jax.Device, which is no type to a checker
Devices = Sequence[Device]
Step = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]

# What drivers say of a device that another process holds now, and may not hold later.
_BUSY = re.compile(
    "already in use|resource busy|busy or unavailable|out of memory|RESOURCE_EXHAUSTED"
    "|DEADLINE_EXCEEDED",
    re.IGNORECASE,
)


def all_devices() -> list[Device]:
    """Return the devices of all processes of the job.

    Raises UserError if JAX cannot open the platform that $JAX_PLATFORMS or an installed plugin
    wants, BusyError if another process holds its devices.
    """
    return _open(jax.devices)


def local_devices() -> list[Device]:
    """Return the devices of this process. Raises UserError and BusyError as `all_devices`."""
    return _open(jax.local_devices)


def _open(devices: Callable[[], list[Device]]) -> list[Device]:
    try:
        return devices()
    except (RuntimeError, AssertionError) as error:  # an assertion for cuda where there is none
        cause = reason(error).partition(" (set JAX_PLATFORMS")[0]
        platforms = getattr(jax.config, "jax_platforms", None)
        where = f"JAX_PLATFORMS={platforms}: " if platforms else ""
        if _BUSY.search(str(error)):
            raise BusyError(f"{where}the devices are busy: {cause}") from error
        raise UserError(
            f"{where}JAX opens no device ({cause}); unset JAX_PLATFORMS to take what there is, or "
            'install what is missing: pip install "ddgan-jax[cuda]" for NVIDIA GPUs, '
            '"ddgan-jax[tpu]" for TPUs'
        ) from error


def mesh(devices: Devices) -> Mesh:
    """Return the one-dimensional mesh of the devices."""
    return Mesh(np.array(devices), (AXIS,))


def replicated(devices: Devices) -> NamedSharding:
    """Return the sharding of values of which every device holds a whole copy."""
    return NamedSharding(mesh(devices), PartitionSpec())


def split(devices: Devices) -> NamedSharding:
    """Return the sharding of arrays whose first axis is divided among the devices."""
    return NamedSharding(mesh(devices), PartitionSpec(AXIS))


def is_main_process() -> bool:
    """Return whether this process is the one that writes logs, grids and the config."""
    return jax.process_index() == 0


def local(devices: Devices) -> list[Device]:
    """Return the devices that this process feeds, in their order."""
    return [device for device in devices if device.process_index == jax.process_index()]


def local_rows(batch_size: int, devices: Devices) -> Int[np.ndarray, " rows"]:
    """Return the positions in a global batch of this process's examples, in their order.

    Device i // (batch_size / number of devices) works on example i, on whatever host it is.
    """
    rows = np.arange(batch_size).reshape(len(devices), -1)
    is_local = [device.process_index == jax.process_index() for device in devices]
    return rows[is_local].reshape(-1)


def local_copy(tree: PyTree, devices: Devices) -> PyTree:
    """Return replicated values as arrays of this process's devices alone; nothing is copied."""
    return _rewrap(tree, local(devices))


def _rewrap(tree: PyTree, devices: Devices) -> PyTree:
    """Return the copies on this process's devices as arrays that are replicated over `devices`."""
    layout = replicated(devices)

    def rewrap(x: jax.Array) -> jax.Array:
        copies = {shard.device: shard.data for shard in x.addressable_shards}
        local_copies = [copies[device] for device in devices if device in copies]
        return jax.make_array_from_single_device_arrays(x.shape, layout, local_copies)

    return jax.tree.map(rewrap, tree)


def create_replicated(create: Callable[[], PyTree], devices: Devices) -> PyTree:
    """Return create(), made directly on all devices by one compiled program."""
    return jax.jit(create, out_shardings=replicated(devices))()


def abstract_state(
    create: Callable[[], TrainState], devices: Devices, *, sharded: bool = False
) -> TrainState:
    """Return shapes, dtypes and shardings of the state create(), without computing it.

    sharded: each device keeps a shard of the arrays that `may_be_sharded` names, along their first
    axis whose size allows it; otherwise every device has all.
    """

    def place(x: jax.ShapeDtypeStruct, may_be: bool) -> jax.ShapeDtypeStruct:
        axes = [axis for axis, size in enumerate(x.shape) if size % len(devices) == 0]
        spec = (None,) * axes[0] + (AXIS,) if sharded and may_be and axes else ()
        layout = NamedSharding(mesh(devices), PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout)

    state = jax.eval_shape(create)
    return jax.tree.map(place, state, may_be_sharded(state))


def create_state(create: Callable[[], TrainState], abstract: TrainState) -> TrainState:
    """Return create(), made directly in its shardings by one compiled program."""
    return jax.jit(create, out_shardings=jax.tree.map(lambda x: x.sharding, abstract))()


def gathered(tree: PyTree, devices: Devices) -> PyTree:
    """Return arrays of any sharding as arrays of which each of this process's devices has all.

    All processes must call this. Nothing is copied where every device has all already.
    """
    if not all(x.is_fully_replicated for x in jax.tree.leaves(tree)):
        tree = jax.jit(lambda tree: tree, out_shardings=replicated(devices))(tree)
    return local_copy(tree, devices)


def to_host(tree: PyTree) -> PyTree:
    """Return arrays of any sharding as numpy arrays. All processes must call this."""

    def fetch(x: Any) -> np.ndarray:
        if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
            return jax.device_get(x)
        return multihost_utils.process_allgather(x, tiled=True)

    return jax.tree.map(fetch, tree)


# ---- inside a step, where the devices are the axis AXIS


def mean(tree: PyTree) -> PyTree:
    """Return the mean of each array over all devices."""
    return lax.pmean(tree, AXIS)


def shard_like(tree: PyTree, shards: PyTree) -> PyTree:
    """Return this device's shard of each array, where `shards` has an array that is sharded.

    The trees have the same structure; where both arrays have one shape there is nothing to do.
    """

    def cut(whole: jax.Array, shard: jax.Array) -> jax.Array:
        axis = _sharded_axis(whole, shard)
        if axis is None:
            return whole
        size = shard.shape[axis]
        return lax.dynamic_slice_in_dim(whole, lax.axis_index(AXIS) * size, size, axis)

    return jax.tree.map(cut, tree, shards)


def gather_like(shards: PyTree, tree: PyTree) -> PyTree:
    """Return the whole arrays whose shards lie on the devices: the inverse of `shard_like`.

    tree: arrays of the whole shapes.
    """

    def gather(shard: jax.Array, whole: jax.Array) -> jax.Array:
        axis = _sharded_axis(whole, shard)
        return shard if axis is None else lax.all_gather(shard, AXIS, axis=axis, tiled=True)

    return jax.tree.map(gather, shards, tree)


def _sharded_axis(whole: jax.Array, shard: jax.Array) -> int | None:
    sizes = zip(whole.shape, shard.shape, strict=True)
    return next((axis for axis, (size, part) in enumerate(sizes) if size != part), None)


# ---- mapping over devices


def map_step(
    step: Step, mapping: str, devices: Devices, abstract: TrainState | None = None
) -> Callable[..., Any]:
    """Return the step over all devices: (state, placed batch, key) -> (state, metrics).

    mapping: "pmap" with an unstacked state, or "shard_map"; both give the same result. abstract:
    the `abstract_state` of a sharded state, for "shard_map" alone. The state passed in is donated:
    use the returned one.
    """
    options = dict(compiler.train_step_options(devices[0].platform))
    if mapping == "pmap":
        pmapped = jax.pmap(
            step,
            axis_name=AXIS,
            in_axes=(None, 0, None),
            out_axes=None,
            donate_argnums=(0,),
            devices=devices,
        )
        if jax.process_count() > 1:
            return _globally(pmapped, devices)
        # pmap takes no compiler options; the program around it does.
        return jax.jit(pmapped, donate_argnums=0, compiler_options=options) if options else pmapped
    whole, shards = PartitionSpec(), PartitionSpec(AXIS)
    state = whole
    if abstract is not None:
        state = jax.tree.map(lambda x: x.sharding.spec, abstract)
    mapped = jax.shard_map(
        step,
        mesh=mesh(devices),
        in_specs=(state, shards, whole),
        out_specs=(state, whole),
        # Gradients keep the meaning that they have under pmap: of the local loss, to be averaged by
        # the step. With the check on, those of replicated parameters would arrive already summed,
        # too large by the number of devices.
        check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=0, compiler_options=options)


def _globally(pmapped: Callable[..., Any], devices: Devices) -> Callable[..., Any]:
    """Return the step with a state that is global again: pmap returns arrays of its own devices."""

    def step(state: PyTree, batch: Batch, key: jax.Array) -> tuple[PyTree, PyTree]:
        state, metrics = pmapped(state, batch, key)
        return _rewrap(state, devices), metrics

    return step


def place_batch(batch: Batch, mapping: str, devices: Devices) -> Batch:
    """Return the `local_rows` of a batch on this process's devices, as `map_step` takes them."""

    def place(x: np.ndarray) -> jax.Array:
        if mapping != "pmap":
            return jax.make_array_from_process_local_data(split(devices), x)
        targets = local(devices)
        count = len(targets)
        return jax.device_put(x.reshape(count, len(x) // count, *x.shape[1:]), split(targets))

    return cast(Batch, jax.tree.map(place, dict(batch)))


def map_examples(function: Callable[..., Any], devices: Devices) -> Callable[..., Any]:
    """Return function(params, xs) -> ys over all devices, for examples that exchange nothing.

    xs and ys are sharded along their first axis, params are replicated.
    """
    whole, shards = PartitionSpec(), PartitionSpec(AXIS)
    mapped = jax.shard_map(
        function,
        mesh=mesh(devices),
        in_specs=(whole, shards),
        out_specs=shards,
        check_vma=False,
    )
    return jax.jit(mapped)


def from_main_process(value: bool) -> bool:
    """Return the main process's value on every process. All processes must call this."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))

"""Read and write the config of a run folder, and refuse to resume the run with another config."""

from ddgan_jax.config import ConfigDict, from_stored
from ddgan_jax.config.defaults import MAY_CHANGE
from ddgan_jax.config.files import from_json, leaves, to_json
from ddgan_jax.errors import UserError
from ddgan_jax.files.run_folder import Report, RunFolder


def read_config(folder: RunFolder, *, report: Report) -> ConfigDict:
    """Return the config of a run, from its newest checkpoint if config.json is damaged.

    report: takes a line about the damage. Raises UserError if neither can be read.
    """
    return folder.read_config(lambda text: from_stored(from_json(text).to_dict()), report=report)


def check_same_run(folder: RunFolder, config: ConfigDict, *, report: Report) -> None:
    """Refuse a folder that holds a run of another config.

    Fields of MAY_CHANGE may differ: they say how far the run goes, what it leaves behind, and where
    its data lies or how it is read, and none changes what a step computes. A folder without
    config.json is a new run. report: takes a line about a damaged config.json. Raises UserError
    that names the differing fields.
    """
    if not folder.config.exists():
        return
    stored = read_config(folder, report=report)
    # The way through JSON makes lists and tuples equal.
    here, there = dict(leaves(from_json(to_json(config)))), dict(leaves(stored))
    differing = [
        f"{name}: {there.get(name, 'absent')!r} in the run folder, {here.get(name, 'absent')!r} now"
        # Both sides are searched: a field may exist on one alone, if the run began with another
        # network.
        for name in sorted(there | here)
        if name not in MAY_CHANGE and there.get(name) != here.get(name)
    ]
    if differing:
        raise UserError(
            f"{folder.path} is a run of another config ({'; '.join(differing)}): "
            "name another run folder, or take these values back"
        )


def write_config(folder: RunFolder, config: ConfigDict) -> None:
    """Write config.json into the run folder, made if missing; only the main process calls this.

    Raises UserError if the folder holds a run of another config, or cannot be written.
    """
    # A damaged config.json is replaced by the next line, so that nobody needs to hear of it.
    check_same_run(folder, config, report=lambda _: None)
    folder.write_config(to_json(config))

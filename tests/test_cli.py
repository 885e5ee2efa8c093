"""The command line: what reaches the commands, and what a user reads after a mistake."""

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

import ddgan_jax.inspection
from ddgan_jax import cli
from ddgan_jax.cli import arguments, help_pages, messages, program
from ddgan_jax.cli.spelling import spell
from ddgan_jax.config.files import load_config, shipped_configs
from ddgan_jax.errors import UserError

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "ddgan_jax"
DIGITS = str(REPOSITORY / "configs" / "digits_ddgan.py")

pytestmark = pytest.mark.quick


@pytest.fixture
def command_module(monkeypatch):
    """Replaces the module behind a command by a function that records its call, and may raise."""

    def install(module: str, function: str, *, raises: BaseException | None = None) -> list:
        calls = []

        def record(*args, **kwargs):
            calls.append((args, kwargs))
            if raises:
                raise raises

        stand_in = types.ModuleType(module)
        setattr(stand_in, function, record)
        monkeypatch.setitem(sys.modules, module, stand_in)
        # `from package import module` takes the package's attribute where there is one already.
        package, _, name = module.rpartition(".")
        monkeypatch.setattr(importlib.import_module(package), name, stand_in, raising=False)
        return calls

    return install


@pytest.fixture(autouse=True)
def joins(monkeypatch):
    """What the processes of a job would be told; the tests' own is no such process."""
    calls = []

    def join(*args, **kwargs):
        calls.append((args, kwargs))

    monkeypatch.setattr("ddgan_jax.training.hosts.join", join)
    return calls


def mistake(capsys, *argv: str) -> str:
    """The one line on stderr that a mistake of the user gives, with exit code 2."""
    assert cli.main(argv) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1 and "Traceback" not in errors
    return errors.strip()


# ------------------------------------------------------------------------- what commands receive


def test_train_receives_the_config_with_its_changed_fields(command_module, joins):
    calls = command_module("ddgan_jax.training.loop", "train")
    argv = [
        "train",
        "--config.data.name=cifar10",  # also before --config
        f"--config={DIGITS}:tiny",
        "--config.train.batch_size",
        "16",
        "--config.generator.channel_multipliers=(1,2,2)",
        "--noconfig.generator.fir",
        "--config.optimizer.beta1=0",
        "--workdir=runs/x",
    ]
    assert cli.main(argv) == 0
    [((config, workdir), _)] = calls
    assert workdir == "runs/x"
    assert joins == [((None, None, None), {"peer_timeout": 120})]
    expected = load_config(f"{DIGITS}:tiny")
    expected.data.name = "cifar10"
    expected.train.batch_size = 16
    expected.generator.channel_multipliers = (1, 2, 2)
    expected.generator.fir = False
    expected.optimizer.beta1 = 0.0
    assert config == expected
    with pytest.raises(AttributeError):
        config.train.bach_size = 1


def test_experiment_receives_its_cells(command_module):
    calls = command_module("ddgan_jax.experiments.mog25", "run")
    argv = ["experiment", "mog25", "--out=o", "--methods=gan,siddm", "--steps=2,4", "--seeds=0-2"]
    assert cli.main(argv) == 0
    options = {"methods": ["gan", "siddm"], "steps": [2, 4], "seeds": [0, 1, 2]}
    assert calls == [(("o",), options | {"setting": "reduced", "iterations": 0})]


def test_claims_receive_their_rows(command_module):
    """Rows are those of the tables that were named."""
    calls = command_module("ddgan_jax.experiments.claims", "run")
    argv = ["experiment", "claims", "--out=o", "--tables=stacked_ddgan", "--rows=T1,T4"]
    assert cli.main([*argv, "--seeds=1", "--jobs=2"]) == 0
    options = {"tables": ["stacked_ddgan"], "rows": ["T1", "T4"], "seeds": [1], "jobs": 2}
    assert calls == [(("o",), options)]
    assert cli.main([*argv[:-1], "--rows=code"]) == 2


def test_prepare_receives_its_flags(command_module):
    calls = command_module("ddgan_jax.data.prepare.prepare", "prepare")
    assert cli.main(["prepare", "--dataset=cifar10", "--archive=a.tgz", "--download"]) == 0
    options = {"data_dir": "", "archive": "a.tgz", "images": None, "arrays": None}
    options |= {"parquet": None, "download": True, "allow_unpublished": False}
    [(positional, named)] = calls
    assert callable(named.pop("warn"))
    assert (positional, named) == (("cifar10",), options)


def test_show_prints_parts_as_they_are_known(monkeypatch, capsys):
    """What came before a mistake is on the screen already."""
    stand_in = types.ModuleType("ddgan_jax.inspection.page")

    def page(config, parts, columns):
        yield f"data {config.data.name} {parts} {columns}"
        raise UserError("no")

    stand_in.page, stand_in.Parts = page, lambda **parts: parts
    monkeypatch.setitem(sys.modules, "ddgan_jax.inspection.page", stand_in)
    monkeypatch.setattr(ddgan_jax.inspection, "page", stand_in, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    assert cli.main(["show", f"--config={DIGITS}", "--costs"]) == 2
    parts = {"modules": False, "costs": True, "memory": False, "all_fields": False, "base": None}
    assert capsys.readouterr() == (f"data digits {parts} 60\n", "ddgan show: no\n")


def test_configs_lists_those_that_ship(capsys):
    assert cli.main(["configs"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    for name, line in shipped_configs().items():
        assert f"{name} {line}" in output


# --------------------------------------------------------------------------------- help pages


def test_overview_names_every_command(capsys):
    assert cli.main(["--help"]) == 0
    page = capsys.readouterr().out
    for name, command in program.COMMANDS.items():
        assert f"  {name} " in page and command.summary in " ".join(page.split())


@pytest.mark.parametrize("name", program.COMMANDS)
def test_help_page_names_every_flag_and_shows_commands_that_work(name, capsys, monkeypatch):
    assert cli.main([*name.split(), "--help"]) == 0
    page = capsys.readouterr().out
    command = program.COMMANDS[name]
    words = " ".join(page.split())
    for flag in command.flags:
        assert f"  {flag.spelling}" in page and " ".join(flag.help.split()) in words
    monkeypatch.chdir(REPOSITORY)
    shown = page.partition("Examples:\n")[2].replace("\\\n", "").splitlines()
    assert len(shown) == len(command.examples)
    for example, line in zip(command.examples, shown, strict=True):
        called, *argv = shlex.split(example.replace("\\\n", ""))
        # Wherever the page breaks a line, a shell reads the same command.
        assert shlex.split(line) == [called, *argv]
        words = name.split()
        used, argv = argv[: len(words)], argv[len(words) :]
        assert (called, used) == ("ddgan", words)
        if command.words:
            continue
        values, overrides = arguments.parse_flags(name, help_pages.flags_of(command), argv)
        if command.takes_config and values.config:
            arguments.parse_config(values.config, overrides)


PAGES = [["--help"], *([*name.split(), "--help"] for name in program.COMMANDS)]
PAGES += [[first, "--help"] for first in help_pages.groups()]


@pytest.mark.parametrize("columns", [40, 80])
def test_no_line_of_a_page_is_wider_than_the_terminal(columns, capsys, monkeypatch):
    """Every page, in the narrowest terminal and in the usual one; wide ones are not filled."""
    monkeypatch.setenv("COLUMNS", str(columns))
    for argv in PAGES:
        assert cli.main(argv) == 0
        for line in capsys.readouterr().out.splitlines():
            # The name of a file or a URL is whole, however long, so that it can be copied.
            words = line.removesuffix("\\").split()
            assert len(line) <= columns or len(words) == 1, (argv, line)
    for terminal, used in ((20, 40), (300, 100)):
        monkeypatch.setenv("COLUMNS", str(terminal))
        assert help_pages.width() == used


@pytest.mark.parametrize("name", ["", "train", "figure", "figure denoising"])
def test_help_is_asked_for_in_several_ways(name, capsys):
    pages = []
    for argv in (["help", *name.split()], [*name.split(), "--help"], [*name.split(), "-h"]):
        assert cli.main(argv) == 0
        pages.append(capsys.readouterr().out)
    assert pages[0].count("\n") > 5 and pages == pages[:1] * 3


@pytest.mark.parametrize("first", ["", *help_pages.groups()])
def test_program_without_a_command_shows_the_commands(first, capsys):
    """To a person; a script, whose variable was empty, gets nothing and the code of a mistake."""
    assert cli.main(first.split()) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert cli.main([*first.split(), "--help"]) == 0
    assert errors == capsys.readouterr().out


def test_help_and_mistakes_do_not_wait_for_heavy_imports():
    check = (
        "import sys; from ddgan_jax.cli import main\n"
        "codes = [main(['--help']), main(['train', '--help']), main(['sample', '--sedes=1'])]\n"
        f"codes += [main(['show', '--config={DIGITS}', '--config.train.bach_size=1'])]\n"
        "heavy = {'jax', 'flax', 'orbax', 'tensorflow_datasets', 'tensorflow', 'numpy', 'PIL'}\n"
        "assert codes == [0, 0, 2, 2] and not heavy & set(sys.modules), (codes, sys.modules.keys())"
    )
    subprocess.run([sys.executable, "-c", check], cwd=REPOSITORY, check=True, capture_output=True)


def test_python_m_is_the_same_program():
    for arguments_, code in (["version"], 0), (["trian"], 2):
        result = subprocess.run(
            [sys.executable, "-m", "ddgan_jax", *arguments_],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
        )
        assert result.returncode == code
        assert re.match(r"ddgan-jax \d|ddgan: unknown command", result.stdout + result.stderr)


# ------------------------------------------------------------------------------------ mistakes


TRAIN = ["train", f"--config={DIGITS}", "--workdir=w"]
MOG25 = ["experiment", "mog25", "--out=o"]

MISTAKES = [
    (["trian"], "ddgan: unknown command 'trian'; did you mean train?"),
    (["experiment", "mog52"], "unknown command 'experiment mog52'; did you mean experiment mog25?"),
    (["help", "trian"], "unknown command 'trian'; did you mean train?"),
    (
        ["train", "--workdir=w"],
        "ddgan train: --config is missing, and w holds no run to go on with; name a",
    ),
    (["train", f"--config={DIGITS}"], "ddgan train: --workdir is missing; see ddgan train --help"),
    ([*TRAIN, "--wrkdir=x"], "ddgan train: unknown flag --wrkdir; did you mean --workdir?"),
    (["sample", "--workdir=w", "--sed=1"], "unknown flag --sed; did you mean --seeds?"),
    (["sample", "--workdir=w", "--config.x=1"], "ddgan sample: unknown flag --config.x"),
    (["sample", "--workdir=w", "--step=ten"], "--step=ten is not an integer"),
    (["prepare", "--dataset=mnist", "--download=so"], "--download=so is not true or false"),
    (["prepare", "--dataset=mnist", "--nodownload=1"], "--nodownload=1 does not take an argument"),
    (["sample", "--workdir=w", "--labels=cat"], "--labels=cat is neither 'all' nor classes such"),
    (["sample", "--workdir=w", "--labels=1,-2"], "--labels=1,-2 is neither 'all' nor classes"),
    (["experiment", "mog25"], "ddgan experiment mog25: --out is missing; see ddgan experiment mog"),
    ([*MOG25, "--methods=ddgam"], "--methods: 'ddgam' is not known; did you mean ddgan?"),
    ([*MOG25, "--methods=ddgan,x"], "'x' is not known; known: gan, ddgan, siddm, siddm_no_afd"),
    ([*MOG25, "--steps=4,0"], "--steps=4,0 is not a list of positive integers such as 2,4,8"),
    ([*MOG25, "--setting=small"], "'small' is not one of paper, reduced"),
    (["sample", "--workdir=w", "--seeds=9-1"], "--seeds=9-1: the range 9-1 runs backwards"),
    (["sample", "--workdir"], "Missing value for flag --workdir"),
    ([*TRAIN, "now"], "unexpected argument 'now'; flags are given as --name=value"),
    (["sample", "now"], "ddgan sample: unexpected argument 'now'"),
    (["show", "--config=configs/none.py"], "config file configs/none.py cannot be read"),
    (
        [*TRAIN, "--config.train.bach_size=64"],
        "the config has no field --config.train.bach_size; did you mean --config.train.batch_size?",
    ),
    (
        [*TRAIN, "--config.batch_size=64"],
        "no field --config.batch_size; did you mean --config.train.batch_size?",
    ),
    ([*TRAIN, "--config.train.seed.x=1"], "the config has no field --config.train.seed.x"),
    (
        [*TRAIN, "--config.train.batch_size=abc"],
        "--config.train.batch_size=abc is not an integer",
    ),
    (
        [*TRAIN, "--config.train.batch_size=1.5"],
        "--config.train.batch_size=1.5 is not an integer",
    ),
    ([*TRAIN, "--config.data.flip=maybe"], "--config.data.flip=maybe is not true or false"),
    ([*TRAIN, "--config.optimizer.beta1=x"], "--config.optimizer.beta1=x is not a number"),
    (
        [*TRAIN, "--config.generator.channel_multipliers=(1, 2"],
        "--config.generator.channel_multipliers=(1, 2 is not a tuple such as 1,2,2",
    ),
    ([*TRAIN, "--config.train=5"], "--config.train is a group of fields; change them one by one"),
    (
        [*TRAIN, f"--config.generator.channel_multipliers={'-' * 100_000}1"],
        "----… is nested too deeply to be a value",
    ),
    (
        ["sample", "--workdir=w", "--st\x1b[3ep=1"],
        "unknown flag --st\\x1b[3ep; did you mean --step?",
    ),
    (["sample", "--workdir=w", "--flagfile=/dev/zero"], "ddgan sample: unknown flag --flagfile"),
    ([*TRAIN, "--flagfile", "/dev/zero"], "ddgan train: unknown flag --flagfile"),
    ([*TRAIN, "-undefok=x", "--x=1"], "ddgan train: unknown flag --undefok"),
    (["sample", "--workdir=w", "--num=2", "--seeds=1"], "--num=N is short for --seeds=0-(N-1)"),
]


@pytest.mark.parametrize(("argv", "message"), MISTAKES, ids=[m[:50] for _, m in MISTAKES])
def test_mistakes_are_one_line_and_exit_code_2(argv, message, capsys, command_module):
    calls = command_module("ddgan_jax.training.loop", "train")
    assert message in mistake(capsys, *argv)
    assert calls == []


INTEGER_FLAGS = [
    pytest.param(name, flag, id=f"{name} --{flag.name}")
    for name, command in program.COMMANDS.items()
    for flag in command.flags
    if flag.kind == "integer"
]
NO_INTEGERS = [
    "",
    " ",
    "ten",
    "1.5",
    "1.5e0",
    "1e99",
    "1e-1",
    "k",
    "--1",
    "0x",
    "nan",
    "9" * 5_000,
    "-" + "9" * 5_000,
]


@pytest.mark.parametrize(("name", "flag"), INTEGER_FLAGS)
def test_every_integer_flag_has_a_range(name, flag, capsys):
    """What lies outside is refused before anything else is looked at, in a short line."""
    assert 0 <= flag.at_least <= flag.at_most <= 2**31 - 1
    assert flag.default is None or flag.at_least <= flag.default <= flag.at_most
    outside = [flag.at_least - 1, flag.at_most + 1, 2**31, 2**63, 10**30]
    for value in (*NO_INTEGERS, *map(str, outside)):
        message = mistake(capsys, *name.split(), f"--{flag.name}={value}")
        assert f": {flag.spelling}=" in message and "is not an integer" in message
        assert message.isprintable() and len(message) < 200
    known = program.COMMANDS[name].flags
    for value in (flag.at_least, flag.at_most):
        needed = [f"--{other.name}=x" for other in known if other.required]
        values, _ = arguments.parse_flags(name, known, [*needed, f"--{flag.name}={value}"])
        assert values[flag.name].value == value


def test_a_missing_config_lists_those_that_ship(capsys, monkeypatch, tmp_path):
    for folder in (REPOSITORY, tmp_path):  # beside the package if not in the current folder
        monkeypatch.chdir(folder)
        message = mistake(capsys, "train", "--workdir=w")
        assert all(name in message for name in shipped_configs())


def test_a_user_error_inside_a_command_is_one_line(capsys, command_module):
    command_module(
        "ddgan_jax.training.loop", "train", raises=UserError("disk full:\n  free some space")
    )
    assert mistake(capsys, *TRAIN) == "ddgan train: disk full: free some space"


@pytest.mark.parametrize("name", program.COMMANDS)
def test_messages_of_the_library_name_the_flags_of_the_command(name, capsys, monkeypatch):
    """Of any command, each parameter that is one of its flags, and nothing else in backticks."""
    command = program.COMMANDS[name]
    own = {flag.name for flag in command.flags} | ({"config"} if command.takes_config else set())
    others = {flag.name for other in program.COMMANDS.values() for flag in other.flags} - own
    pairs = [(f"`{flag}`", spell(flag)) for flag in own]
    pairs += [(f"`{flag}=a b_c-d.e`", f"{spell(flag)}=a b_c-d.e") for flag in own]
    for parameter, flag in messages.FLAG_OF_PARAMETER.items():
        assert flag not in own or parameter not in own  # which of the two would it be?
        spelled = f"{spell(flag)}=7" if flag in own else f"`{parameter}=7`"
        pairs.append((f"`{parameter}=7`", spelled))
    unknown = others - messages.FLAG_OF_PARAMETER.keys()
    pairs += [(text, text) for text in (*(f"`{other}`" for other in unknown), "`ddgan train`")]

    def refuse(*arguments):
        raise UserError(f"{', '.join(before for before, _ in pairs)}: no")

    monkeypatch.setitem(program.COMMANDS, name, command._replace(run=refuse))
    argv = [f"--{flag.name}=x" for flag in command.flags if flag.required]
    argv += [f"--config={DIGITS}"] if command.takes_config else []
    message = mistake(capsys, *name.split(), *argv)
    assert message == f"ddgan {name}: {', '.join(after for _, after in pairs)}: no"


FLAG_IN_TEXT = re.compile(r"(?<![\w-])--[a-z]")


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name != "cli"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_errors_of_the_library_name_no_flags(path):
    """Only whole commands, to be copied, may stand in a message outside of the command line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise):
            texts = (n.value for n in ast.walk(node) if isinstance(n, ast.Constant))
            for text in filter(lambda text: isinstance(text, str), texts):
                assert "ddgan " in text or not FLAG_IN_TEXT.search(text), (node.lineno, text)


def test_flags_are_spelled_with_hyphens_everywhere():
    """In messages, commands to be copied and comments; XLA's own flags are others'."""
    for path in (*PACKAGE.rglob("*.py"), *(REPOSITORY / "launch").iterdir()):
        if path.is_file():
            found = re.findall(r"(?<![\w-])--(?!xla_)[a-z]+_[a-z_]*", path.read_text())
            assert not found, (path, found)


def test_lines_of_progress_name_flags(capsys):
    values, _ = arguments.parse_flags("prepare", program.COMMANDS["prepare"].flags, ["--dataset=x"])
    messages.reporter(values)("as `allow_unpublished` and `labels` say")
    assert capsys.readouterr().err == "as --allow-unpublished and `labels` say\n"


def test_ctrl_c_says_how_to_go_on(capsys, command_module):
    command_module("ddgan_jax.training.loop", "train", raises=KeyboardInterrupt())
    assert cli.main(TRAIN) == 130
    message = "ddgan train: interrupted; the same command continues from the last checkpoint\n"
    assert capsys.readouterr().err == message


def test_a_bug_keeps_its_traceback(command_module):
    command_module("ddgan_jax.training.loop", "train", raises=ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(TRAIN)
    # A pipe that breaks elsewhere than at our output is no reason for silence.
    command_module("ddgan_jax.training.loop", "train", raises=BrokenPipeError())
    with pytest.raises(BrokenPipeError):
        cli.main(TRAIN)


def test_a_closed_pipe_is_quiet():
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, "-m", "ddgan_jax", "--help"],
        cwd=REPOSITORY,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, b"")

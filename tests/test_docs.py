"""What documents say can be done: links lead somewhere, commands parse, Python compiles.

Nothing is run, and no page of another host is asked for.
"""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from ddgan_jax.cli import arguments, help_pages, reference
from ddgan_jax.cli.command import Command
from ddgan_jax.cli.commands import COMMANDS
from ddgan_jax.config import base_config
from ddgan_jax.config.files import leaves

ROOT = Path(__file__).parents[1]
TEXTS = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "launch/*.md", "benchmarks/*.md", "notebooks/*.ipynb")
    for path in sorted(ROOT.glob(pattern))
    if not path.name.endswith(".template.md")
]

_FENCE = re.compile(r"^( *)```(\w*).*?\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
# "ddgan train: .." is a message.
_COMMAND = re.compile(r"(ddgan|python -m ddgan_jax)\s(?!\w+(\s\w+)?: )")
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


def read(name: str) -> str:
    """Return a text as Markdown, a notebook too: its code becomes blocks of code."""
    text = (ROOT / name).read_text("utf-8")
    if not name.endswith(".ipynb"):
        return text
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        is_shell = source.startswith("%%bash\n")
        source = "\n".join(line for line in source.splitlines() if not line.startswith("%"))
        parts.append(f"```{'sh' if is_shell else 'python'}\n{source}\n```")
    return "\n\n".join(parts)


def blocks(text: str, *languages: str) -> Iterator[str]:
    return (code for _, language, code in _FENCE.findall(text) if language in languages)


def anchors(text: str) -> set[str]:
    """Return the names that headings get on the forge and on the site."""
    headings = re.findall(r"^#+ +(.*)$", _FENCE.sub("", text), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    text = read(name)
    prose = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))
    for link in map("".join, _LINK.findall(prose)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = unquote(link).partition("#")
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), link
        # The site consists of docs/ alone.
        assert not name.startswith("docs/") or path.resolve().is_relative_to(ROOT / "docs"), link
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path.read_text("utf-8")), link


def command_lines(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each command line of `ddgan`, and whether it is whole: nothing stands for something."""
    for code in blocks(text, "sh", "bash", "console", ""):
        for line in code.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|\||[;|]", line.strip().removeprefix("$ ")):
                if _COMMAND.match(part.strip()):
                    yield part.strip(), not re.search(r"\.\.\.|=[A-Z_]+(\W|$)", part)
    for code in re.findall(r"`([^`]*)`", _FENCE.sub("", text)):
        if _COMMAND.match(code):
            yield " ".join(code.split()), False


def parts_of(line: str) -> tuple[list[Command], list[str]]:
    """Return the commands that a line may mean, "ddgan figure" several, and their arguments."""
    words = shlex.split(line.removeprefix("python -m ddgan_jax").removeprefix("ddgan"), True)
    # What goes to or comes from a file is the shell's.
    words = words[: next((i for i, word in enumerate(words) if word[0] in "<>&"), len(words))]
    for count in (2, 1):
        if command := COMMANDS.get(" ".join(words[:count])):
            return [command], words[count:]
    family = [COMMANDS[name] for name in COMMANDS if name.split()[0] in words[:1]]
    return family, words[1:]


# The history names commands as they were.
LINES = sorted(
    (name, line, whole)
    for name in TEXTS
    for line, whole in set(command_lines(read(name)))
    if name != "CHANGELOG.md"
)


@pytest.mark.parametrize(("name", "line", "whole"), LINES)
def test_command_lines_parse(name, line, whole, monkeypatch):
    monkeypatch.chdir(ROOT)
    commands, argv = parts_of(line)
    # "ddgan COMMAND --help", "ddgan --version"
    assert commands or not argv or re.match(r"[A-Z-]", line.split()[1]), "no such command"
    if any(command.words for command in commands):
        # These read their arguments themselves.
        return
    known = [flag for command in commands for flag in help_pages.flags_of(command)]
    if whole and len(commands) == 1 and "--help" not in argv:
        values, overrides = arguments.parse_flags("ddgan", known, argv)
        # Configs of the reader's own are not here.
        if commands[0].takes_config and ships(values.config):
            arguments.parse_config(values.config, overrides)
        return
    fields = {f"config.{field}" for field, _ in leaves(base_config())}
    names = {flag.name.replace("-", "_") for flag in known} | {"help", "config.FIELD"} | fields
    for flag in re.findall(r"--([\w.-]+)", " ".join(argv) if commands else ""):
        assert flag.replace("-", "_") in names, flag


def ships(config: str | None) -> bool:
    """Return whether a config is one of the package's, by name or by path."""
    name = (config or "").partition(":")[0]
    return bool(name) and (not re.search(r"[/.]", name) or (ROOT / name).exists())


@pytest.mark.parametrize("name", TEXTS)
def test_python_compiles(name):
    for code in blocks(read(name), "python", "py"):
        ast.parse(code)


def test_the_reference_of_commands_is_current():
    assert (ROOT / "docs" / "commands.md").read_text("utf-8") == reference.page()

"""The command lines that the documents print, read out of their Markdown."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, "" for a terminal, and its text."""

    language: str
    text: str


def blocks(document: Path) -> list[Block]:
    return [Block(*found) for found in _FENCE.findall(document.read_text())]


def inline(text: str) -> list[str]:
    """What stands between single backticks outside fenced blocks."""
    return _INLINE.findall(_FENCE.sub("", text))


def command_lines(document: Path) -> list[str]:
    """Every printed command, without prompt and comment; `[X]` gives one line with X, one without.

    In a terminal's block with prompts only the lines behind a prompt are commands. In a sentence
    one or two words name a command (`emerge3d look`) and do not give it: see `names`.
    """
    found = [line for line in inline(document.read_text()) if len(line.split()) > 2]
    for block in blocks(document):
        if block.language == "":
            lines = block.text.replace("\\\n", " ").splitlines()
            prompted = [line[2:] for line in lines if line.startswith("$ ")]
            found += prompted or lines
    commands = [part.strip() for line in found for part in line.split(" # ")[0].split("&&")]
    return [each for line in commands for each in _variants(line)]


def names(document: Path) -> list[str]:
    """Subcommands of `emerge3d` that sentences name without their options."""
    lines = [line.split() for line in inline(document.read_text())]
    return [line[1] for line in lines if line[0] == "emerge3d" and len(line) == 2]


def _variants(line: str) -> list[str]:
    optional = re.search(r" \[[A-Z]+\]$", line)
    if optional is None:
        return [line]
    return [line[: optional.start()], line.replace("[", "").replace("]", "")]


def words(line: str) -> list[str]:
    """The command's words, without the settings of the environment before it."""
    split = shlex.split(line)
    while split and re.fullmatch(r"[A-Z_0-9]+=.*", split[0]):
        split = split[1:]
    return split


def module_of(line: str) -> tuple[str, list[str]] | None:
    """The project's own script that a line runs with python or torchrun, and its options."""
    split = words(line)
    if not split or split[0] not in ("python", "python3", "torchrun"):
        return None
    rest = [word for word in split[1:] if not word.startswith("--nproc_per_node")]
    if rest[:1] == ["-m"] and rest[1].split(".")[0] in ("explorer", "app"):
        return rest[1], rest[2:]
    if rest and rest[0].startswith("benchmarks/"):
        return rest[0].removesuffix(".py").replace("/", "."), rest[1:]
    return None

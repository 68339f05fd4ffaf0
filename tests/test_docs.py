"""The documentation says what is so: its commands exist, its scripts are read, its tables are full.

Commands are checked against the real command line; those of the quick start and of the click
reference are run.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from maskfix.benchmarks import LAYOUTS
from maskfix.cli.docs import FOLDER, TOPICS, text_of
from maskfix.cli.export import Target
from maskfix.cli.main import app
from maskfix.cli.options import MasksFormat
from maskfix.errors import UsageError
from maskfix.formats import click_script
from maskfix.formats.click_script import parse_click_script
from maskfix.methods import METHODS
from maskfix.refinement.guard import LIMITS
from maskfix.report.rows import COLUMNS, Summary
from maskfix.train.readers import FORMATS
from maskfix.triage.run import COLUMNS as TRIAGE_COLUMNS
from maskfix.triage.run import REFERENCE_COLUMN

ROOT = Path(__file__).parents[1]
TREE = get_command(app)
PAGES = {
    **{topic: text_of(topic) for topic in TOPICS},
    "README": (ROOT / "README.md").read_text("utf-8"),
}
OTHER_PROGRAMS = {"python3", ".venv/bin/pip", ".venv/bin/pytest"}


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)


def commands_of(page: str) -> list[list[str]]:
    """The words of every command in the bash blocks; also of several on a line."""
    found = []
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for last, part in itertools.groupby(words, key=lambda word: word == "&&"):
                if not last:
                    found.append(list(part))
    return found


def arguments_of(words: list[str]) -> list[str] | None:
    """What follows ``maskfix``; None if it is a command of another program."""
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if words[0] == "torchrun":
        assert words[-1] != "-m" and "-m" in words
        words = words[words.index("-m") + 1 :]
    if words[0] in {"maskfix", ".venv/bin/maskfix"}:
        return words[1:]
    assert words[0] in OTHER_PROGRAMS, words
    return None


def check(arguments: list[str]) -> None:
    """Parse arguments as the command would, without running it.

    Raises:
        AssertionError, or the parser's own: no such command, flag or value.
    """
    command: Any = TREE
    while hasattr(command, "commands"):
        assert arguments and arguments[0] in command.commands, arguments
        command, arguments = command.commands[arguments[0]], arguments[1:]
    with command.make_context("maskfix", list(arguments), resilient_parsing=False):
        pass


def leaves(command: Any = TREE, path: str = "maskfix") -> Iterator[tuple[str, Any]]:
    """Every command that does something, with how it is called."""
    for name, sub in command.commands.items():
        if hasattr(sub, "commands"):
            yield from leaves(sub, f"{path} {name}")
        else:
            yield f"{path} {name}", sub


LEAVES = dict(leaves())


def first_cells(page: str, heading: str) -> list[str]:
    """The `names` in the first column of the table that follows a heading."""
    lines = PAGES[page].splitlines()
    after = itertools.dropwhile(lambda line: not line.startswith(heading), lines)
    table = itertools.dropwhile(lambda line: not line.startswith("|"), after)
    rows = list(itertools.takewhile(lambda line: line.startswith("|"), table))[2:]
    return [name for row in rows for name in re.findall("`([^`]+)`", row.split("|")[1])]


def test_topics_are_the_files() -> None:
    assert sorted(TOPICS) == sorted(path.stem for path in FOLDER.iterdir())
    for topic in TOPICS:
        assert PAGES[topic].startswith("# ") and PAGES[topic].isascii(), topic
        assert f"`maskfix docs {topic}`" not in PAGES[topic], f"{topic} refers to itself"


def test_the_list_has_a_line_a_topic_and_a_topic_is_printed_as_it_is() -> None:
    lines = CliRunner().invoke(app, ["docs"]).output.splitlines()
    assert [line.split()[0] for line in lines[: len(TOPICS)]] == list(TOPICS)
    assert all(len(line) < 100 for line in lines)
    assert CliRunner().invoke(app, ["docs", "faq"]).output == PAGES["faq"]
    with pytest.raises(UsageError, match="there is no topic 'faqs'; there are quick-start, "):
        CliRunner().invoke(app, ["docs", "faqs"], catch_exceptions=False)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_one(page: str) -> None:
    found = [arguments_of(words) for words in commands_of(page)]
    for arguments in found:
        if arguments is not None:
            check(arguments)
    assert found or page in {"faq", "report"}


@pytest.mark.parametrize("page", PAGES)
def test_what_is_named_in_the_text_exists(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    code = re.findall(r"`([^`]+)`", text)
    flags = {flag for leaf in LEAVES.values() for p in leaf.params for flag in p.opts}
    flags |= {flag for leaf in LEAVES.values() for p in leaf.params for flag in p.secondary_opts}
    for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", " ".join(code)):
        assert flag in {*flags, "--help"}, flag
    for words in (span.split() for span in code if span.startswith("maskfix ")):
        if words[1] == "docs" and len(words) == 3 and words[2] != "TOPIC":
            assert words[2] in TOPICS
        elif words[1] != "COMMAND":
            assert words[1] in TREE.commands, words  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", LEAVES)
def test_the_help_of_every_command_ends_with_an_example(path: str) -> None:
    *_, last = LEAVES[path].help.strip().split("\n\n")
    example = " ".join(last.split())
    assert example.startswith(f"Example: {path}"), path
    check(shlex.split(example)[2:])


@pytest.mark.parametrize("page", PAGES)
def test_every_click_script_is_one(page: str) -> None:
    for script in blocks(page, "yaml"):
        assert parse_click_script(script.encode(), page).images
    assert page not in {"clicks", "README"} or blocks(page, "yaml")


def test_tables_are_complete() -> None:
    """Names in the first columns of tables, against the names in the code."""
    documented = {
        ("clicks", "## An instance"): click_script._INSTANCE_KEYS,
        ("formats", "## Masks"): [kind.value for kind in MasksFormat],
        ("report", "## report.csv"): COLUMNS,
        ("report", "## Status"): Summary().counts,
        ("triage-and-sheet", "## Triage"): (*TRIAGE_COLUMNS, REFERENCE_COLUMN),
        ("train", "## Your own data"): FORMATS,
        ("evaluate", "## Run"): LAYOUTS,
        ("evaluate", "## Methods"): METHODS,
        ("hand-off", "# Hand-off"): [target.value for target in Target],
    }
    for (page, heading), names in documented.items():
        assert sorted(first_cells(page, heading)) == sorted(names), f"{page}, {heading}"


def test_the_guard_is_as_documented() -> None:
    table = PAGES["correct"].split("## Guard", 1)[1].replace("a tenth", "0.1")
    for column, limits in ((2, LIMITS["normal"]), (3, LIMITS["strict"])):
        for name, words in (
            ("least_area", "leaves less of the area than"),
            ("most_area", "has more than so many times the area"),
            ("stray_area", "has new area far from the old mask, more than"),
        ):
            [row] = [line for line in table.splitlines() if line.startswith(f"| {words} ")]
            stated = float(row.split("|")[column].split()[0])
            assert stated == getattr(limits, name), name


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of the samples, to be in."""
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_all(page: str) -> None:
    for words in commands_of(page):
        arguments = arguments_of(words)
        assert arguments is not None
        result = CliRunner().invoke(app, arguments, catch_exceptions=False, standalone_mode=False)
        assert not result.return_value, f"{shlex.join(words)}: {result.output}"


def test_the_quick_start_is_walked(samples: Path) -> None:
    run_all("quick-start")
    made = ("triage/sheet.csv", "sheet.html", "refined/annotations.json", "yolo/data.yaml")
    assert all((samples / name).is_file() for name in made)
    assert len(list((samples / "pictures").iterdir())) == 7
    listed = first_cells("quick-start", "## 3. Repair")
    there = {path.name for path in (samples / "refined").iterdir()}
    assert there == {*listed, "journal.jsonl"} - {"masks/"}
    summary = json.loads((samples / "refined" / "summary.json").read_text())
    assert sorted(first_cells("report", "## summary.json")) == sorted(summary)
    with (samples / "refined" / "report.csv").open(encoding="utf-8", newline="") as file:
        assert csv.DictReader(file).fieldnames == first_cells("report", "## report.csv")


def test_the_click_reference_is_walked(samples: Path) -> None:
    script, *_ = blocks("clicks", "yaml")
    (samples / "clicks.yaml").write_text(script, encoding="utf-8")
    run_all("clicks")
    rows = map(json.loads, (samples / "refined" / "report.jsonl").read_text().splitlines())
    status = {row["id"]: row["status"] for row in rows}
    assert status == {**dict.fromkeys((1, 2, 3, 5, 7, 9, 13), "ok"), 8: "unchanged"}

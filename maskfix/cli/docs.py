"""``maskfix docs``: prints the documentation, the Markdown files of ``maskfix/docs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskfix.errors import UsageError

FOLDER = Path(__file__).parents[1] / "docs"
TOPICS = (
    *("quick-start", "clicks", "formats", "report", "triage-and-sheet", "correct"),
    *("train", "evaluate", "scale", "hand-off", "faq"),
)
"""Names of the files, in reading order."""


def docs_command(
    topic: Annotated[str | None, typer.Argument(help="One of the topics; without: a list.")] = None,
) -> None:
    """Print the documentation: a list of topics, or one of them as Markdown.

    Example: maskfix docs clicks
    """
    if topic is None:
        for name in TOPICS:
            typer.echo(f"{name:16}  {title_of(name)}")
        typer.echo("\nmaskfix docs TOPIC prints one of them.")
        return
    if topic not in TOPICS:
        raise UsageError(f"there is no topic {topic!r}; there are {', '.join(TOPICS)}")
    typer.echo(text_of(topic), nl=False)


def text_of(topic: str) -> str:
    """The Markdown of a topic."""
    return (FOLDER / f"{topic}.md").read_text(encoding="utf-8")


def title_of(topic: str) -> str:
    """The first heading of a topic."""
    return text_of(topic).partition("\n")[0].removeprefix("# ")

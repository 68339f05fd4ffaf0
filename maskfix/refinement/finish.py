"""From the journal of a finished run to its annotations, report and summary."""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskfix.formats import Written
from maskfix.refinement.gallery import write_report_page
from maskfix.refinement.inputs import Inputs
from maskfix.refinement.journal import Journal, Line
from maskfix.refinement.outcome import pack, unpack_edits
from maskfix.report.rows import Summary, read_rows, write_rows, write_summary
from maskfix.version import __version__


def write_results(
    inputs: Inputs,
    journal: Journal,
    out: Path,
    model: dict[str, Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Make the final files, instance by instance; nothing is held but the ten worst rows.

    Args:
        inputs: of the run.
        journal: all of it.
        out: an existing folder.
        model: what the summary says of the model.
        say: called with a line for a person to read.

    Returns:
        the content of summary.json.
    """
    edits = (edit for line in journal.lines() for edit in unpack_edits(line))
    config = inputs.config
    written = inputs.source.write(edits, out, config.segmentation, config.simplify)
    summary, matched_by = Summary(), Counter[str]()

    def rows() -> Iterator[dict[str, Any]]:
        for line in [pack(outcome) for outcome in inputs.lost]:
            summary.add(line["row"], None)
            yield line["row"]
        for lines, closing in journal.chunks():
            matched_by.update(closing["matched_by"])
            for line in lines:
                row = _row(line, written)
                summary.add(row, line["overlap"])
                yield row
        for _ in written:  # there is none; the files are completed
            pass

    for _ in write_rows(rows(), out):
        pass
    if matched_by["none"]:
        say(f"note: no reference mask fits {matched_by['none']} of {matched_by.total()} images")
    content = {
        **summary.finish(),
        "references_matched_by": matched_by,
        "model": model,
        "versions": {
            "maskfix": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "command": sys.argv,
    }
    write_summary(content, out)
    lost = len(inputs.lost)
    write_report_page(out, read_rows(out), journal.lines(), lost, inputs.source, config, content)
    return content


def summarise_rows(journal: Journal) -> dict[str, Any]:
    """The summary of a part of a run, of which no files are made."""
    summary = Summary()
    for line in journal.lines():
        summary.add(line["row"], line["overlap"])
    return summary.finish()


def _row(line: Line, written: Iterator[Written]) -> dict[str, Any]:
    """The row of an instance, with what became of its edits in the files."""
    row: dict[str, Any] = line["row"]
    remarks = [row["reason"]]
    for edit in line["edits"]:
        result = next(written)
        remarks.append(result.note or "")
        if not result.is_done:
            row["status"] = "failed"
        if edit["kind"] == "add" and row["id"] is None:
            row["id"] = result.id
        elif edit["kind"] == "add" and result.id is not None:
            remarks.append(f"the rest is instance {result.id}")
    row["reason"] = "; ".join(filter(None, remarks))
    return row

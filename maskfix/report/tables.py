"""The tables of an evaluation: rows of methods, the best first, and what others have published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

from maskfix.report.plots import row_label

BEST, SECOND = "best", "second"
SHOWN = (1, 2, 3, 5, 10)  # clicks after which the IoU is given

_SEVERAL = 3  # rows from which on the second best is marked
_PERCENT = ("worse@1", "worse@end", "broken@1", "broken@end", "drops")


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        title: in full.
        group: what it shares with its neighbours, where the head has two lines; then
        short: is the rest of the title.
        ranked: whether the lowest number wins, to be marked.
    """

    title: str
    group: str = ""
    short: str = ""
    ranked: bool = False


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        title: above it.
        columns: the first one names the rows.
        rows: cells as they are shown; measured ones first.
        keys: (model, method) of the measured rows.
        published: how many of the last rows are by others.
        marks: `BEST` and `SECOND` by (row, column), among the measured rows.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: tuple[tuple[str, str], ...]
    published: int = 0
    marks: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def groups(self) -> list[tuple[str, int]]:
        """The upper line of the head: (text, columns below it)."""
        return [(name, len(list(own))) for name, own in groupby(c.group for c in self.columns)]


def make_tables(content: Mapping[str, Any]) -> list[Table]:
    """The tables: NoC as papers print it, then one with everything a set.

    Args:
        content: of noc.json, see `maskfix.report.evaluation.write_report`.
    """
    names = [entry["name"] for entry in content["sets"]]
    ats = [f"@{100 * t:g}" for t in content["settings"]["thresholds"]]
    limit = content["settings"]["max_clicks"]
    tables = [_overview(content, names, ats)]
    for name in names:
        here = [r for r in content["results"] if r["set"] == name]
        tables.append(_details(name, here, ats, limit))
    return tables


def sources(content: Mapping[str, Any]) -> list[str]:
    """Where published numbers are from, in the order of their first use."""
    return list(dict.fromkeys(row["source"] for row in content.get("published", ())))


def markdown_tables(content: Mapping[str, Any]) -> str:
    """`make_tables` as Markdown; the best is bold, the second best underlined."""
    return "\n".join(f"## {table.title}\n\n{_markdown(table)}" for table in make_tables(content))


def _overview(content: Mapping[str, Any], names: Sequence[str], ats: Sequence[str]) -> Table:
    columns = [Column("Model")]
    columns += [Column(f"{n} NoC{at}", n, f"NoC{at}", ranked=True) for n in names for at in ats]
    cells = [(name, f"noc{at}") for name in names for at in ats]
    top = len(ats)
    found: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for result in content["results"]:
        own = found.setdefault((result["model"], result["method"]), {})
        own |= {(result["set"], f"noc{at}"): result[f"noc{at}"] for at in ats}
    keys = sorted(found, key=lambda key: sum(found[key][cell] for cell in cells[top - 1 :: top]))
    rows = [[found[key][cell] for cell in cells] for key in keys]
    others = _published(content, cells)
    return Table(
        "Number of clicks",
        tuple(columns),
        tuple((row_label(*key), *map(_clicks, row)) for key, row in zip(keys, rows, strict=True))
        + tuple((label, *map(_clicks, row)) for label, row in others),
        tuple(keys),
        len(others),
        _marks([[None, *row] for row in rows], columns),
    )


def _published(
    content: Mapping[str, Any], cells: Sequence[tuple[str, str]]
) -> list[tuple[str, list[float | None]]]:
    """Label and numbers of every published row that has one of the cells."""
    numbers: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for result in content.get("published", ()):
        own = numbers.setdefault((result["model"], result["source"]), {})
        own |= {(result["set"], k): v for k, v in result.items() if k.startswith("noc@")}
    where = {source: f"[{i}]" for i, source in enumerate(sources(content), 1)}
    rows = [
        (f"{model} {where[source]}", [own.get(cell) for cell in cells])
        for (model, source), own in numbers.items()
    ]
    return [row for row in rows if any(number is not None for number in row[1])]


def _details(
    name: str, results: Sequence[Mapping[str, Any]], ats: Sequence[str], limit: int
) -> Table:
    """Everything about one set; a column a number."""
    top = ats[-1]
    results = sorted(results, key=lambda result: result[f"noc{top}"])
    plan = _plan(ats, limit, any(r["worse@1"] is not None for r in results))
    values = [[get(result) for _, get in plan] for result in results]
    columns = [Column("Model"), *(column for column, _ in plan)]
    keys = [(result["model"], result["method"]) for result in results]
    return Table(
        name,
        tuple(columns),
        tuple(
            (row_label(*key), *(_cell(v, c) for v, c in zip(row, columns[1:], strict=True)))
            for key, row in zip(keys, values, strict=True)
        ),
        tuple(keys),
        marks=_marks([[None, *row] for row in values], columns),
    )


Getter = Callable[[Mapping[str, Any]], Any]


def _plan(ats: Sequence[str], limit: int, from_masks: bool) -> list[tuple[Column, Getter]]:
    """The columns of a set, each with what it shows of a result."""
    low, top = min(20, limit), ats[-1]
    plan: list[tuple[Column, Getter]] = []

    def add(title: str, key: str, group: str = "", short: str = "", ranked: bool = False) -> None:
        plan.append((Column(title, group, short or title, ranked), lambda result: result[key]))

    add("n", "n")
    for at in ats:
        add(f"NoC{at}", f"noc{at}", "NoC", at, ranked=True)
    for at in ats:
        add(f">={low}{at}", f"at_limit{at}", f"≥ {low} clicks", at)
    add(f"failed{top}", f"failed{top}", "failed", top)
    if limit > low:
        group = f"of {limit} clicks"
        for what, key in ((f"NoC{limit}", "noc"), (f">={limit}", "at_limit"), ("failed", "failed")):
            add(f"{what}{top} of {limit}", f"{key}{limit}{top}", group, f"{what}{top}")
    if from_masks:
        add("IoU@0", "miou@0", "given masks", "IoU")
        add(f"already{top}", f"already{top}", "given masks", f"already{top}")
        for key in _PERCENT[:4]:
            what, when = key.split("@")
            add(key, key, what, f"@{when}")
    for k in (k for k in SHOWN if k <= limit):
        curve = partial(_after, k)
        plan.append((Column(f"IoU@{k}", "IoU after clicks", str(k)), curve))
    add("area", "miou_area", "IoU after clicks", "area")
    add("BIoU", "biou")
    add("drops", "drops")
    add("s/click", "spc", "seconds", "click")
    add("SPC", "spc_published", "seconds", "SPC")
    return plan


def _after(k: int, result: Mapping[str, Any]) -> float | None:
    """Mean IoU after k clicks."""
    iou: float | None = result["miou@k"][k - 1]
    return iou


def _marks(
    rows: Sequence[Sequence[float | None]], columns: Sequence[Column]
) -> dict[tuple[int, int], str]:
    """The lowest and the second lowest numbers of ranked columns, as they are shown."""
    marks: dict[tuple[int, int], str] = {}
    for j in (j for j, column in enumerate(columns) if column.ranked and len(rows) > 1):
        shown = [_clicks(row[j]) for row in rows]
        order = sorted(set(shown), key=float)
        for i, text in enumerate(shown):
            if text == order[0]:
                marks[i, j] = BEST
            elif len(rows) >= _SEVERAL and text == order[1]:
                marks[i, j] = SECOND
    return marks


def _clicks(number: float | None) -> str:
    return "-" if number is None else f"{number:.2f}"


def _cell(value: Any, column: Column) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if column.title in _PERCENT:
        return f"{100 * value:.1f} %"
    return _clicks(value) if column.title.startswith("NoC") else f"{value:.3f}"


def _markdown(table: Table) -> str:
    around = {BEST: "**{}**", SECOND: "<u>{}</u>"}
    lines = [[column.title for column in table.columns]]
    lines.append(["---", *("---:" for _ in table.columns[1:])])
    first_published = len(table.rows) - table.published
    for i, row in enumerate(table.rows):
        cells = [around.get(table.marks.get((i, j), ""), "{}").format(c) for j, c in enumerate(row)]
        if i >= first_published:
            cells[0] = f"published: {cells[0]}"
        lines.append(cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

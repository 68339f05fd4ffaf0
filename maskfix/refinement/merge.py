"""The parts of a run, made by ``--shard I/N``, put together: the result is that of a single run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from maskfix.config import RefineConfig, unpack_config
from maskfix.errors import InputError, UsageError
from maskfix.refinement.finish import write_results
from maskfix.refinement.inputs import Inputs
from maskfix.refinement.journal import NAME as JOURNAL
from maskfix.refinement.journal import Journal, Line, Record, read_chunks, read_header
from maskfix.refinement.outcome import check_line
from maskfix.refinement.run import Say, prepare_out
from maskfix.sharding import Shard, parse_shard

SHOWN = 5  # missing shards, in a message


def command_of(folder: Path) -> str:
    """The command that a shard is of.

    Raises:
        InputError: the folder is none of a shard.
    """
    header = read_header(_journal(folder))
    if not header.get("shard"):
        raise InputError(f"{folder} is no shard but a whole run; nothing is to be merged")
    return str(header.get("command"))


def open_shards(folders: Sequence[Path], check: Callable[[Line], object]) -> list[Record]:
    """The journals of all shards of one run, in the order of their numbers.

    Args:
        folders: of the shards, in any order.
        check: see `maskfix.refinement.journal.Record`.

    Raises:
        InputError: a shard is missing, not finished, there twice, or of another run.
    """
    records: dict[int, Record] = {}
    first, count = folders[0], 0
    for folder in folders:
        record = Record(_journal(folder), check)
        shard = _shard_of(record, folder)
        count = count or shard.count
        known = next(iter(records.values()), None)
        difference = known.compare(record.header, but="shard") if known else None
        if shard.count != count:
            difference = f"it is {count} parts there, {shard.count} here"
        if difference:
            raise InputError(f"{folder} is not of the same run as {first}: {difference}")
        if shard.number in records:
            other = records[shard.number].path.parent
            raise InputError(f"{other} and {folder} are both shard {shard}; give each once")
        expected = record.about.get("chunks")
        if record.chunks != expected:
            raise InputError(
                f"{folder}: shard {shard} is not finished, {record.chunks} of {expected} chunks "
                "are done; go on with it with --resume"
            )
        records[shard.number] = record
    missing = [number for number in range(1, count + 1) if number not in records]
    if missing:
        listed = ", ".join(map(str, missing[:SHOWN]))
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise InputError(f"of {count} shards {len(missing)} are missing: {listed}{more}")
    return [records[number] for number in sorted(records)]


def merge_refinements(
    folders: Sequence[Path],
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Put the shards of a refinement together.

    Args:
        folders: the ``--out`` of every shard.
        out: a folder to be made.
        resume: go on with an interrupted merge.
        overwrite: replace what is in ``out``.
        say: called with a line for a person to read.

    Returns:
        the summary, as of `maskfix.refine`.

    Raises:
        InputError: see `open_shards`; or the inputs have changed.
    """
    shards = open_shards(folders, check_line)
    model = shards[0].about["model"]
    config = replace(
        config_of(shards[0], RefineConfig), shard=None, out=out, resume=resume, overwrite=overwrite
    )
    inputs = Inputs(config)
    chunks = inputs.chunks()
    identity = inputs.identity(model["sha256"])
    difference = shards[0].compare(identity, but="shard")
    if difference:
        raise InputError(f"{shards[0].path.parent}: the inputs have changed: {difference}")
    prepare_out(config)
    about = {**shards[0].about, "chunks": len(chunks)}
    journal = Journal(out / JOURNAL, identity, resume, check_line, about)
    try:
        take_chunks(journal, shards, len(chunks))
    finally:
        journal.close()
    return {**write_results(inputs, journal, out, model, say), "out": str(out)}


def take_chunks(journal: Journal, shards: Sequence[Record], count: int) -> None:
    """Append the chunks of shards to a journal in their order; those that it has are left out.

    Args:
        journal: of the whole.
        shards: in the order of their numbers.
        count: of chunks in the whole.
    """
    parts = [read_chunks(shard.path) for shard in shards]
    for number in range(count):
        lines, closing = next(parts[number % len(parts)])
        if number >= journal.chunks_done:
            del closing["closed"]
            journal.append(lines, closing)


def config_of(record: Record, kind: type[Any]) -> Any:
    """The settings that a shard was made with.

    Raises:
        InputError: its journal does not hold any.
    """
    try:
        return unpack_config(record.about["config"], kind)
    except (KeyError, msgspec.ValidationError) as error:
        raise InputError(f"{record.path}, line 1: no settings of a shard: damaged") from error


def _journal(folder: Path) -> Path:
    path = folder / JOURNAL
    if not path.is_file():
        raise InputError(
            f"{folder} has no {JOURNAL}; the --out of a command with --shard was expected"
        )
    return path


def _shard_of(record: Record, folder: Path) -> Shard:
    text = record.header.get("shard")
    shard = parse_shard(text) if isinstance(text, str) else None
    if shard is None:
        raise UsageError(f"{folder} is no shard but a whole run; nothing is to be merged")
    return shard

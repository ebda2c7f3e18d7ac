"""
`bizlog dead-letters`: see what could not be delivered, send it again, or let it go.

Looking changes nothing. What rewrites the files holds the folder, so that no other
command does so at the same time; services go on writing meanwhile.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bizlog.cli import letter_replay
from bizlog.cli.arguments import positive_int
from bizlog.cli.entries import BadLine, BadLines, LetterLine
from bizlog.cli.errors import CommandError
from bizlog.cli.letter_files import LetterFolder, Rewriting, read_letters
from bizlog.cli.letter_filter import NO_SINK, LetterFilter, add_filters
from bizlog.cli.places import DEAD_LETTERS, configured_folder
from bizlog.cli.tables import aligned, counted, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DESCRIPTION = """\
Events that could not be delivered are kept in the dead-letter folder, with the reason:
those that a sink refused, those that the end of a process left over, and those that
were never accepted because they break their schema (their sink is 'none').

DIR is by default the setting dead_letters: BIZLOG_DEAD_LETTERS, bizlog.toml, or
./bizlog-dead-letters. Services may go on writing to it meanwhile.

  ls       count the letters by sink, reason and event type
  show     print letters, with the events in them
  replay   send the events to a sink again and remove the letters of what was delivered
  drop     remove letters for good
"""
EPILOG = """\
examples:
  bizlog dead-letters ls
  bizlog dead-letters show --type 'order.*' --limit 3
  bizlog dead-letters show --json | jq .record
  bizlog dead-letters replay --from-sink http --sink https://collector.example/events/batch
  bizlog dead-letters drop --reason 'expected a number' --yes

exit codes: 0 all is well; 1 not every letter could be read or delivered (the output
says which); 2 could not start; 130 ended by Ctrl-C
"""
SHOWN = 20


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "dead-letters",
        help="see, replay or drop what could not be delivered",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    ls = _verb(verbs, "ls", "count the letters", list_letters)
    ls.add_argument("--json", action="store_true", help="print one JSON object")
    show = _verb(verbs, "show", "print letters", show_letters)
    show.add_argument(
        "--limit",
        type=positive_int,
        default=SHOWN,
        metavar="N",
        help=f"at most N ({SHOWN})",
    )
    show.add_argument(
        "--json", action="store_true", help="print them as they stand, one a line"
    )
    replay = _verb(verbs, "replay", "send the events again", letter_replay.run)
    letter_replay.add_options(replay)
    drop = _verb(verbs, "drop", "remove letters for good", drop_letters)
    drop.add_argument("--yes", action="store_true", help="do not ask")


def _verb(
    verbs: Any,
    name: str,
    what: str,
    work: Callable[[LetterFolder, argparse.Namespace], int],
) -> argparse.ArgumentParser:
    def run(arguments: argparse.Namespace) -> int:
        path = arguments.folder or configured_folder(DEAD_LETTERS)
        return work(LetterFolder(path), arguments)

    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=what, description=f"{what[0].upper()}{what[1:]}."
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="the folder (default: the setting dead_letters)",
    )
    add_filters(parser)
    parser.set_defaults(run=run)
    return parser


class _Found:
    """The letters that a filter takes, and what else stands in the files."""

    def __init__(self, folder: LetterFolder, arguments: argparse.Namespace) -> None:
        self.files = folder.files()
        self.bad_lines = BadLines()
        self._filter = LetterFilter(arguments)

    def __iter__(self) -> Iterator[tuple[bytes, LetterLine]]:
        for path in self.files:
            for line, entry in read_letters(path):
                if self._filter.takes(entry):
                    yield line, entry
                elif isinstance(entry, BadLine):
                    self.bad_lines.add(entry)

    def close(self) -> int:
        """Tell of lines that could not be read; give the exit code."""
        told = self.bad_lines.told()
        if told:
            print(*told, "(they stay where they are)", sep="\n", file=sys.stderr)
        return 1 if told else 0


def list_letters(folder: LetterFolder, arguments: argparse.Namespace) -> int:
    """Count the letters by sink, reason and event type."""
    found = _Found(folder, arguments)
    counts: Counter[tuple[str, str, str]] = Counter()
    oldest, newest, size = "", "", 0
    for line, entry in found:
        letter = entry.letter
        key = (letter.sink or NO_SINK, entry.event_type or "unknown", letter.reason)
        counts[key] += 1
        oldest = min(oldest or letter.first_at, letter.first_at)
        newest = max(newest, letter.last_at)
        size += len(line) + 1
    summary = {
        "folder": str(folder.path),
        "files": len(found.files),
        "letters": counts.total(),
        "bytes": size,
        "oldest": oldest or None,
        "newest": newest or None,
    }
    if arguments.json:
        groups = [
            {"sink": s, "event_type": t, "reason": r, "letters": n}
            for (s, t, r), n in counts.most_common()
        ]
        told = summary | {"groups": groups, "bad_lines": found.bad_lines.count}
        print(json.dumps(told, indent=2))
    else:
        print(*_listing(summary, counts), sep="\n")
    return found.close()


def _listing(
    summary: dict[str, Any], counts: Counter[tuple[str, str, str]]
) -> Iterator[str]:
    yield (
        f"{summary['folder']}: {counted(summary['letters'], 'letter')} in "
        f"{counted(summary['files'], 'file')}, {counted(summary['bytes'], 'byte')}"
    )
    if counts:
        yield f"from {summary['oldest']} to {summary['newest']}"
        rows = [(f"{n:,}", *map(printable, key)) for key, n in counts.most_common()]
        yield from aligned([("letters", "sink", "event type", "reason"), *rows])


def show_letters(folder: LetterFolder, arguments: argparse.Namespace) -> int:
    """Print letters, at most so many."""
    found = _Found(folder, arguments)
    for number, (line, entry) in enumerate(found):
        if number == arguments.limit:
            print(f"bizlog: there are more than {number:,} (--limit)", file=sys.stderr)
            break
        as_it_is = line.decode("utf-8", "replace")
        print(as_it_is if arguments.json else "\n".join(_shown(entry)))
    return found.close()


def _shown(entry: LetterLine) -> Iterator[str]:
    letter = entry.letter
    path = f" at {letter.path}" if letter.path else ""
    name = entry.event_type or "an event without a name"
    yield f"{letter.last_at}  {printable(name)}  {letter.event_id or 'without an id'}"
    yield f"  refused by  {printable(letter.sink or NO_SINK)}"
    yield f"  because     {printable(letter.reason + path)}"
    if letter.attempts:
        yield f"  attempts    {letter.attempts:,}, the first at {letter.first_at}"
    yield f"  stands in   {entry.place}"
    yield f"  event       {printable(bytes(letter.record).decode('utf-8', 'replace'))}"


def drop_letters(folder: LetterFolder, arguments: argparse.Namespace) -> int:
    """Remove letters for good, once somebody has agreed."""
    with folder.held():
        found = _Found(folder, arguments)
        letters = sum(1 for _ in found)
        if letters:
            _confirm(folder, letters, agreed=arguments.yes)
        dropped = sum(_drop(path, LetterFilter(arguments)) for path in found.files)
    print(f"{counted(dropped, 'letter')} dropped from {folder.path}")
    return found.close()


def _confirm(folder: LetterFolder, letters: int, *, agreed: bool) -> None:
    if agreed:
        return
    question = f"drop {counted(letters, 'letter')} from {folder.path} for good"
    if not sys.stdin.isatty():
        raise CommandError(f"{question}? say so with --yes")
    print(f"{question}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise CommandError("nothing was dropped")


def _drop(path: Path, letter_filter: LetterFilter) -> int:
    if not any(letter_filter.takes(entry) for _, entry in read_letters(path)):
        return 0
    dropped = 0
    with Rewriting(path) as new:
        for line, entry in read_letters(new.path):
            if letter_filter.takes(entry):
                dropped += 1
            elif line:
                new.keep(line)
    return dropped

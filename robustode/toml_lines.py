"""Where the keys of a TOML file are: tomllib gives values without their lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

Key = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_STRING = re.compile(r'"""(?:\\.|[^\\])*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:\\.|[^"\\])*"|' + r"'[^']*'", re.DOTALL)
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN = re.compile(r"[^,\]}#\r\n]+")  # a number, a date, true or false


def key_lines(text: str) -> dict[Key, int]:
    """Return the line, counted from 1, of every key and of every element of an array in a valid TOML document.

    A key is a path: `models` with `[[models]]` tables gives ("models",), ("models", 0), ("models", 0, "model"), ...
    A table that is opened several times has the line where it is opened first.
    """
    scan = _Scan(text)
    scan.document()
    return scan.lines


def line_of(path: Path, key: Sequence[str | int]) -> int | None:
    """Return the line of a key in a TOML file, or of the nearest thing around it; None if the file has none of it."""
    try:
        lines = key_lines(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, IndexError):
        return None
    around = (tuple(key[:length]) for length in range(len(key), 0, -1))
    return next((lines[part] for part in around if part in lines), None)


def place(path: Path, key: Sequence[str | int]) -> str:
    """Return "FILE, line N" of a key, or "FILE" where the file has none of it; a relative path stays as it is."""
    line = line_of(path, key)
    return str(path) if line is None else f"{path}, line {line}"


class _Scan:
    """A walk through a document that tomllib has accepted, so that it need not complain of anything."""

    def __init__(self, text: str) -> None:
        self.text, self.here, self.lines = text, 0, {}
        self.tables: dict[Key, int] = {}  # last index of every array of tables

    def document(self) -> None:
        table: Key = ()
        while self.blank() < len(self.text):
            if self.text[self.here] == "[":
                table = self.header()
            else:
                self.pair(table)

    def header(self) -> Key:
        several = self.text.startswith("[[", self.here)
        start = self.here
        self.here += 2 if several else 1
        *outer, last = self.key()
        self.here += 2 if several else 1
        table: Key = ()
        for part in outer:
            table = self.note((*table, part), start)
            table = (*table, self.tables[table]) if table in self.tables else table
        table = self.note((*table, last), start)
        if several:
            self.tables[table] = self.tables.get(table, -1) + 1
            table = self.note((*table, self.tables[table]), start)
        return table

    def pair(self, table: Key) -> None:
        start = self.here
        for part in self.key():
            table = self.note((*table, part), start)
        self.here += 1  # =
        self.skip(_SPACE)
        self.value(table)

    def key(self) -> list[str]:
        parts = []
        while True:
            self.skip(_SPACE)
            quoted = self.text[self.here] in "\"'"
            word = self.skip(_STRING if quoted else _BARE)
            parts.append(_unquoted(word) if quoted else word)
            self.skip(_SPACE)
            if self.text[self.here] != ".":
                return parts
            self.here += 1

    def value(self, key: Key) -> None:
        first = self.text[self.here]
        if first in "[{":
            self.here += 1
            self.inside(key, "]" if first == "[" else "}")
        else:
            self.skip(_STRING if first in "\"'" else _PLAIN)

    def inside(self, key: Key, end: str) -> None:
        """Elements of an array, or pairs of an inline table, up to and with the bracket that ends them."""
        number = 0
        while True:
            self.blank()
            if self.text[self.here] == end:
                self.here += 1
                return
            if self.text[self.here] == ",":
                self.here += 1
            elif end == "}":
                self.pair(key)
            else:
                self.value(self.note((*key, number), self.here))
                number += 1

    def note(self, key: Key, start: int) -> Key:
        self.lines.setdefault(key, self.text.count("\n", 0, start) + 1)
        return key

    def blank(self) -> int:
        self.skip(_BLANK)
        return self.here

    def skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.here)
        if found is None:
            raise ValueError(f"not TOML at character {self.here}")
        self.here = found.end()
        return found[0]


def _unquoted(word: str) -> str:
    import tomllib

    return tomllib.loads(f"key = {word}")["key"]

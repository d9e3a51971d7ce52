"""Coordinating words as they stand in a shell script: found without running it, so only as far as they can be seen.

Nothing here judges: a name that holds variables keeps them as holes, and what is no shell grammar is passed over.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice


@dataclass(frozen=True, slots=True)
class Hole:
    """A part of a word that is known only when the script runs; ``variable`` is empty where it is no plain variable."""

    variable: str = ""


Text = tuple[str | Hole, ...]
"""A word of a script: literal parts and holes."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A coordinating word in a script: ``testbed WORD ...``, or what a comment ``# testbed: sets KEY`` tells.

    ``line`` and ``column`` count from 0 within the script, ``length`` in characters. ``surely`` says that it runs
    whenever its script gets there: it stands alone, in no loop, function or condition. ``told`` is what a comment is.
    ``quoted`` is what stands in quotes that are no script for another shell: as likely a text as a command.
    """

    word: str
    operands: tuple[Text, ...]
    options: tuple[tuple[str, Text], ...]
    line: int
    column: int
    length: int
    surely: bool
    told: bool = False
    quoted: bool = False

    def option(self, *names: str) -> Text | None:
        """The value of the first of these options, () for one without a value, None where none is given."""
        return next((value for name, value in self.options if name in names), None)


_CALL = re.compile(r"(?<![\w./$-])testbed[ \t]+(?=[a-z-])")
_TOLD = re.compile(r"#\s*testbed:[ \t]*(?=\w)")
_WITH_VALUE = frozenset({
    "-t", "--timeout", "--value", "--reason", "--uuid", "--run", "--nodes", "--role", "--count", "-p", "--port",
})  # fmt: skip
_LOOK = 1000  # characters around a call that are looked at, so that no text costs more than its length
_MOST = 2000  # calls in a script that are looked at
_NAME = re.compile(r"[A-Za-z_]\w*")
_ALONE_BEFORE = re.compile(r"\s*(\w+=)?\"?(\$\()?\s*")
_OPENS = re.compile(
    r"(?:^|[;&|]|\b(?:then|do|else)\b)\s*(?:if|case|for|while|until|select)\b|(?<![^\s;&|)])\{(?=\s)|[({]\s*$|<<"
)
_RUNS = re.compile(r"(?:\s-\w*c|\beval|\btrap)\s*$")  # a quoted script comes next
_CLOSES = re.compile(r"(?:^|;)\s*(?:fi|esac|done|\}|\))(?=\s|;|$|[|&>])")


def mentions(script: str) -> list[Mention]:
    """Every coordinating word in the script, in its order."""
    begins, depths = [0], [0]  # of each line: its offset, and how many loops, functions and the like are open there
    for line in script.split("\n"):
        begins.append(begins[-1] + len(line) + 1)
        depths.append(max(0, depths[-1] + len(_OPENS.findall(line)) - len(_CLOSES.findall(line))))
    found = [m for p in (_CALL, _TOLD) for m in islice(_found(script, p, begins, depths), _MOST)]
    return sorted(found, key=lambda m: (m.line, m.column))


def names_program(script: str, name: str) -> bool:
    """Whether the script mentions a file of that name."""
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", script) is not None


def is_shell(text: str, name: str) -> bool:
    """Whether the file ``name`` with that text is a shell script, by its first line or its ending."""
    first = text.partition("\n")[0]
    if first.startswith("#!"):
        return re.search(r"\b(ba|da|k|z|a)?sh\b", first) is not None
    return name.endswith((".sh", ".bash"))


def _found(script: str, pattern: re.Pattern[str], begins: list[int], depths: list[int]) -> Iterator[Mention]:
    told = pattern is _TOLD
    for match in pattern.finditer(script):
        line = bisect_right(begins, match.start()) - 1
        begin = begins[line]
        before = script[max(begin, match.start() - _LOOK) : match.start()]
        quote, quote_at = _open_quote(before)
        if quote == "#" or (told and not _begins_comment(before)):
            continue
        text = script[match.start() : match.start() + _LOOK]
        if quote and not told:
            text = _inside(text, quote)
        words, end = _words(text, match.end() - match.start())
        if not words or len(words[0]) != 1 or not isinstance(words[0][0], str):
            continue
        options, operands = _sort(words[1:])
        yield Mention(
            word=words[0][0],
            operands=operands,
            options=options,
            line=line,
            column=match.start() - begin,
            length=len(text[:end].split("\n")[0].rstrip()),
            surely=not told and depths[line] == 0 and _alone(before, text[end:].partition("\n")[0]),
            told=told,
            quoted=bool(quote) and not _RUNS.search(before[:quote_at]),
        )


def _alone(before: str, after: str) -> bool:
    """Whether a call between these parts of its line runs whenever that line is come to, and is waited for."""
    return bool(_ALONE_BEFORE.fullmatch(before)) and not re.search(r"\||&\s*($|[;#)])", after.replace("&&", ""))


def _open_quote(before: str) -> tuple[str, int]:
    """The quote that is open after ``before`` on its line, and where it began; ``#`` for a comment, empty for none."""
    stack: list[tuple[str, int]] = []  # quotes, and what a "$(" or a backquote has begun
    at = 0
    while at < len(before):
        character, top = before[at], stack[-1][0] if stack else ""
        if character == top:
            stack.pop()
        elif top == "'":
            pass
        elif character == "\\":
            at += 1
        elif before.startswith("$(", at):
            stack.append((")", at))
            at += 1
        elif character in '"`' or (character == "'" and top != '"'):
            stack.append((character, at))
        elif character == "#" and top != '"' and _begins_comment(before[:at]):
            return "#", at
        at += 1
    return stack[-1] if stack and stack[-1][0] in "'\"" else ("", 0)


def _inside(text: str, quote: str) -> str:
    """The text up to the end of the quotes that it stands in, as a shell reads it that gets them."""
    if quote == "'":
        return text.partition("'")[0]
    end = re.compile(r'(?:[^"\\]|\\.)*', re.S).match(text)
    return re.sub(r'\\(["$`\\])', r"\1", end[0] if end else "")


def _begins_comment(before: str) -> bool:
    return not before or before[-1] in " \t;&|("


def _sort(words: list[Text]) -> tuple[tuple[tuple[str, Text], ...], tuple[Text, ...]]:
    """Options with their values, and operands."""
    options: list[tuple[str, Text]] = []
    operands: list[Text] = []
    rest = iter(words)
    for word in rest:
        first = word[0] if word and isinstance(word[0], str) else ""
        name, equals, value = first.partition("=")
        if not first.startswith("-") or first == "-":
            operands.append(word)
        elif name.startswith("--") and equals:
            options.append((name, _joined([value, *word[1:]])))
        elif first in _WITH_VALUE or (re.fullmatch(r"-[a-z]*t", first) and len(word) == 1):
            options += [(f"-{letter}", ()) for letter in first[1:-1]] if not first.startswith("--") else []
            options.append((first if first.startswith("--") else "-" + first[-1], next(rest, ())))
        else:
            options += [(f"-{letter}", ()) for letter in first[1:]] if not first.startswith("--") else [(first, ())]
    return tuple(options), tuple(operands)


def _joined(parts: list[str | Hole]) -> Text:
    """The parts as one word, neighbouring literals together, nothing empty."""
    text: list[str | Hole] = []
    for part in parts:
        if isinstance(part, str) and text and isinstance(text[-1], str):
            text[-1] += part
        elif part != "":
            text.append(part)
    return tuple(text)


def _words(script: str, at: int) -> tuple[list[Text], int]:
    """The words of a command from ``at`` on, and where it ends."""
    words: list[Text] = []
    while True:
        while at < len(script) and (script[at] in " \t" or script.startswith("\\\n", at)):
            at += 2 if script[at] == "\\" else 1
        if at >= len(script) or script[at] in "\n;|&)`<>#":
            return words, at
        parts: list[str | Hole] = []
        begin = at
        while at < len(script) and script[at] not in " \t\n;|&)`<>" and not script.startswith("\\\n", at):
            at = _part(script, at, parts)
        if at < len(script) and script[at] in "<>" and script[begin:at].isdigit():
            return words, at  # 2>file
        words.append(_joined(parts))


def _part(script: str, at: int, parts: list[str | Hole]) -> int:
    """Take one part of a word; where the next begins."""
    character = script[at]
    if character == "'":
        end = _find(script, "'", at + 1)
        parts.append(script[at + 1 : end])
        return end + 1
    if character == '"':
        return _quoted(script, at + 1, parts)
    if character == "$":
        return _expansion(script, at, parts)
    if character in "*?":
        parts.append(Hole())  # the shell makes of it what lies there
        return at + 1
    if character in "[{":
        inside = re.compile(r"[^\s;|&]*").match(script, at + 1)
        end = inside[0].rfind("]" if character == "[" else "}") if inside else -1
        parts.append(Hole() if end >= 0 else character)
        return at + 2 + end if end >= 0 else at + 1
    if character == "\\":
        parts.append(script[at + 1 : at + 2])
        return at + 2
    parts.append(character)
    return at + 1


def _quoted(script: str, at: int, parts: list[str | Hole]) -> int:
    """The inside of double quotes; where the text goes on after them."""
    while at < len(script) and script[at] != '"':
        if script[at] == "$":
            at = _expansion(script, at, parts)
        elif script[at] == "`":
            parts.append(Hole())
            at = _find(script, "`", at + 1) + 1
        elif script[at] == "\\" and script[at + 1 : at + 2] in ('"', "$", "`", "\\"):
            parts.append(script[at + 1])
            at += 2
        else:
            parts.append(script[at])
            at += 1
    return at + 1


def _expansion(script: str, at: int, parts: list[str | Hole]) -> int:
    """What a dollar begins; where the text goes on after it."""
    after = script[at + 1 : at + 2]
    if after in ("(", "{"):
        end = _balanced(script, at + 1, after, ")" if after == "(" else "}")
        inside = script[at + 2 : end - 1]
        parts.append(Hole(inside if after == "{" and _NAME.fullmatch(inside) else ""))
        return end
    name = _NAME.match(script, at + 1)
    if name:
        parts.append(Hole(name[0]))
        return name.end()
    if after and after in "0123456789@*#?$!-":
        parts.append(Hole())
        return at + 2
    parts.append("$")
    return at + 1


def _balanced(script: str, at: int, opening: str, closing: str) -> int:
    """The place after the bracket that closes the one at ``at``."""
    depth = 0
    for place in range(at, len(script)):
        depth += (script[place] == opening) - (script[place] == closing)
        if depth == 0:
            return place + 1
    return len(script)


def _find(script: str, wanted: str, at: int) -> int:
    """The place of ``wanted`` from ``at`` on; the end where there is none."""
    found = script.find(wanted, at)
    return len(script) if found < 0 else found

"""A look at XML of unknown origin before it is parsed for good."""

from __future__ import annotations

from xml.parsers import expat

DEPTH = 64
"""How deep elements may nest; JUnit needs five or so, and parsers recurse."""


class Unfit(Exception):
    """The document must not or cannot be used; the message says why."""


class _NotJUnit(Exception):
    pass


def check(raw: bytes) -> bool:
    """Whether ``raw`` is a JUnit document (root testsuites or testsuite) that is safe to parse.

    The parser that looks is the one that would parse, so no encoding hides a document type from it, and it stops at
    that declaration, before any entity could be expanded. Raises `Unfit`, and ExpatError for XML that is broken.
    """
    parser = expat.ParserCreate()
    depth = 0

    def start(name: str, _attributes: object) -> None:
        nonlocal depth
        if depth == 0 and name not in ("testsuites", "testsuite"):
            raise _NotJUnit
        depth += 1
        if depth > DEPTH:
            raise Unfit(f"its elements nest deeper than {DEPTH}")

    def end(_name: str) -> None:
        nonlocal depth
        depth -= 1

    def doctype(*_: object) -> None:
        raise Unfit("it declares a document type, which is never followed")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(raw, True)
    except _NotJUnit:
        return False
    return True

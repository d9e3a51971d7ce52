"""What the help and the notes of a diagnostic say, where a person would not know what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.errors import SpecError
from testbed.spec import load

WAYS_OUT = [
    ("test: echo\n", "its place is in a configuration; known here: deployment, description"),
    ("count: 3\n", "its place is in a node; known here: deployment, description"),
    ("configurations: {c: {timeout: 5m}}\n", "its place is at the top or in a target or in a service"),
    ("configurations: {c: {pre: x}}\n", "its place is in a target"),
    ("configurations: {c: {tset: x}}\n", "did you mean 'test'?"),
    ("configurations:\n  c:\n    test:echo\n", "a key needs a space after its ':'"),
    ("deployment:d\nconfigurations:\n", "with a space after each key's ':'"),
    ("configurations:\n\xa0\xa0c: {test: x}\n", "it holds a no-break space"),
    ("configurations:\nnodes: {n: {configurations: [c]}}\n", "the spec has: none"),
    ("configurations: [{name: c}]\n", "a mapping: 'NAME: {test: ./run.sh}'"),
    ("configurations:\n  c:\n    test: *.sh\n", "begin it on the next line after '|'"),
    ('configurations:\n  c:\n    test: "\\d"\n', "use single quotes"),
    ("configurations:\n  c:\n    test: | x\n", "begin the text on the next line"),
    ("parameters: {a: {type: integer, min: 1, default: 2}}\n", "did you mean 'minimum'?"),
]


def diagnostics(text: str, tmp_path: Path) -> list[str]:
    """What is said about a spec, each with its notes and its help."""
    path = tmp_path / "deployment.yml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load(path)
    return ["\n".join((d.message, *d.notes, d.help)) for d in caught.value.diagnostics]


@pytest.mark.parametrize(("text", "wanted"), WAYS_OUT, ids=[w for _, w in WAYS_OUT])
def test_the_way_out_is_told(text: str, wanted: str, tmp_path: Path) -> None:
    """A mistake that people make gets the help that mends it."""
    assert wanted in "\n".join(diagnostics(text, tmp_path))


def test_a_merged_key_says_where_it_was_merged(tmp_path: Path) -> None:
    """A key that is right at its anchor and wrong where it is merged in names both places."""
    text = (
        "x-a: &a {timeout: 5m}\ndeployment: d\nconfigurations:\n  c:\n    <<: *a\nnodes: {n: {configurations: [c]}}\n"
    )
    [said] = diagnostics(text, tmp_path)
    assert said.startswith("unknown key 'timeout'\nmerged in at 5:5\n")


def test_a_name_ends_with_its_last_character(tmp_path: Path) -> None:
    """A line end after a name is no part of any name, and a '$' of a parameter's pattern is the very end."""
    text = (
        'deployment: "d\\n"\n'
        'parameters: {"p\\n": {default: 1}, q: {pattern: "[$a]$", default: "a\\n"}, r: {pattern: "[$]$", default: $}}\n'
        'configurations: {c: {test: x, services: {"s\\n": {run: x}}}}\n'
        'nodes: {"n\\n": {configurations: [c]}, m: {configurations: [c], machine: "m\\n"}}\n'
    )
    assert [said.split("\n")[0] for said in diagnostics(text, tmp_path)] == [
        "this is no deployment name: found the string 'd",
        "this is no parameter name: found the string 'p",
        "the string 'a",
        "this is no service name: found the string 's",
        "this is no host name: found the string 'n",
        "this is no machine name: found the string 'm",
    ]


@pytest.mark.parametrize("name", ["items", "clients"])
def test_a_wrong_parameter_is_told_once(name: str, tmp_path: Path) -> None:
    """A template over a parameter that has no right value is passed over, whatever the parameter is called."""
    text = (
        f"deployment: d\nparameters: {{{name}: {{type: integer, default: x}}}}\nconfigurations: {{c: {{test: x}}}}\n"
        f"nodes: {{n: {{configurations: [c], count: \"{{{{ params['{name}'] + 1 }}}}\"}}}}\n"
    )
    assert len(diagnostics(text, tmp_path)) == 1

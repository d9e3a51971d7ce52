"""What the writers make of a run: readable by their consumers, and unharmed by what nodes send."""

from __future__ import annotations

import json
import os
import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from junitparser import JUnitXml

from testbed import events as ev
from testbed.report import bundle, data, junit, text
from testbed.report.files import step_tail
from testbed.report.harmless import harmless, harmless_line
from testbed.report.state import RunState, fold
from testbed.report.verdict import Judgement, judge

CASES = Path(__file__).parent.parent / "cases" / "events"
NAMES = sorted(p.stem for p in CASES.glob("*.jsonl"))


def judged(name: str) -> tuple[RunState, Judgement]:
    """A case, folded and judged."""
    state = fold(ev.decode(line) for line in (CASES / f"{name}.jsonl").read_text("utf-8").splitlines())
    return state, judge(state)


def put(path: Path, content: str | bytes) -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", NAMES)
def test_junit_is_read_again(name: str, tmp_path: Path) -> None:
    """The JUnit file of any run parses again, green exactly when the run passed, with all that consumers read."""
    state, judgement = judged(name)
    assert junit.write(tmp_path / "junit.xml", state, judgement, tmp_path / "nodes") == []
    found = JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    assert (found.failures + found.errors == 0) == (judgement.exit_code == 0 or name == "bug")
    assert found.tests > 0
    root = ET.parse(tmp_path / "junit.xml").getroot()
    assert [s.get("name") for s in root] == ([n.name for n in state.in_order] or ["run"])
    for case in root.iter("testcase"):
        assert case.get("name")
        assert case.get("classname")
        assert float(case.get("time", "x")) >= 0
    for suite in root:
        assert int(suite.get("tests", "0")) == len(suite.findall("testcase"))


def test_a_failing_case_carries_its_log(tmp_path: Path) -> None:
    """The failure of a case names the step and reason and ends with the log, made fit for XML."""
    state, judgement = judged("fail")
    put(tmp_path / "nodes/n-0/logs/greeter.test.main.err", "one\n\x1b[31mno \x00 route\x1b[0m\n")
    junit.write(tmp_path / "junit.xml", state, judgement, tmp_path / "nodes")
    root = ET.parse(tmp_path / "junit.xml").getroot()
    (case,) = [c for c in root[0] if c.get("name") == "test"]
    failure = case.find("failure")
    assert failure is not None
    assert failure.get("message") == "main: exit code 3"
    assert failure.text == "one\nno \ufffd route"
    assert case.findtext("system-out") == "one\nno \ufffd route"


def test_a_node_that_may_be_missing_is_no_error(tmp_path: Path) -> None:
    """What a dead node misses is skipped where its policy lets it die, so that JUnit is as green as the run."""
    state, judgement = judged("lost-optional-node")
    junit.write(tmp_path / "junit.xml", state, judgement, tmp_path / "nodes")
    cases = list(ET.parse(tmp_path / "junit.xml").getroot().iter("testcase"))
    assert [c for c in cases if c.find("error") is not None or c.find("failure") is not None] == []
    (missing,) = [c for c in cases if c.get("classname") == "hello.n-1.greeter" and c.get("name") == "test"]
    assert missing.find("skipped") is not None


def test_users_reports_are_merged_under_the_nodes_name(tmp_path: Path) -> None:
    """Users' suites, nested ones too, become suites named after the node, whatever their attributes hold."""
    state, judgement = judged("pass")
    put(
        tmp_path / "nodes/n-0/reports/deep/units.xml",
        """<testsuites><testsuite name="outer" tests="many"><testcase name="a" time="1,000.5"/>
        <testsuite name="inner" timestamp="21 Nov"><testcase name="b" time="soon"><failure message="no"/></testcase>
        <testcase name="c" time="inf"/></testsuite></testsuite><testsuite name="empty"/></testsuites>""",
    )
    put(
        tmp_path / "nodes/n-1/reports/single.xml",
        "<testsuite timestamp='2026-01-02T03:04:05Z'><testcase time='-1'/></testsuite>",
    )
    put(tmp_path / "nodes/n-1/reports/coverage.xml", "<coverage version='1'/>")
    assert junit.write(tmp_path / "junit.xml", state, judgement, tmp_path / "nodes") == []
    root = ET.parse(tmp_path / "junit.xml").getroot()
    assert [s.get("name") for s in root] == ["n-0", "n-0.outer", "n-0.inner", "n-1", "n-1.single"]
    assert [c.get("time") for s in (root[1], root[2], root[4]) for c in s.iter("testcase")] == [
        "1000.5",
        "0.0",
        "0.0",
        "0.0",
    ]
    assert root.get("failures") == "1"
    assert root[2].get("timestamp") == root[0].get("timestamp")
    assert root[4].get("timestamp") == "2026-01-02T03:04:05Z"


HOSTILE = {
    "entities": b'<!DOCTYPE x [<!ENTITY a "aaaa">]><testsuite name="&a;"><testcase name="x"/></testsuite>',
    "utf-16": '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE x [<!ENTITY a "a">]><testsuite/>'.encode("utf-16"),
    "broken": b"<testsuite><testcase>",
    "empty": b"",
    "binary": bytes(range(256)),
    "deep": b"<testsuite>" + b"<a>" * 100_000,
    "encoding": b'<?xml version="1.0" encoding="no-such"?><testsuite/>',
    "namespace": b'<testsuite xmlns="urn:x"><testcase name="x"/></testsuite>',
    "large": b"<testsuite>" + b" " * junit.FILE_LIMIT,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_xml_is_a_warning(name: str, tmp_path: Path) -> None:
    """A file that is broken or hostile is named in a warning, and the rest of the report is as without it."""
    state, judgement = judged("pass")
    clean, _ = junit.render(state, judgement, tmp_path / "nodes")
    put(tmp_path / "nodes/n-0/reports/bad.xml", HOSTILE[name])
    found, warnings = junit.render(state, judgement, tmp_path / "nodes")
    assert found == clean
    assert [w.split(" is not merged")[0] for w in warnings] == ["nodes/n-0/reports/bad.xml"]


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    """A link or a pipe among what came home is neither read nor packed."""
    state, judgement = judged("pass")
    secret = put(tmp_path / "secret", "<testsuite name='s'><testcase name='root:x'/></testsuite>")
    reports = tmp_path / "run/nodes/n-0/reports"
    put(reports / "fine.txt", "fine")
    (reports / "link.xml").symlink_to(secret)
    os.mkfifo(reports / "pipe.xml")
    (tmp_path / "run/nodes/n-0/logs").mkdir()
    (tmp_path / "run/nodes/n-0/logs/greeter.test.main.out").symlink_to(secret)
    found, warnings = junit.render(state, judgement, tmp_path / "run/nodes")
    assert b"root:x" not in found
    assert len(warnings) == 2
    bundle.write(tmp_path / "run/reports.tar.gz", tmp_path / "run", "r-1")
    with tarfile.open(tmp_path / "run/reports.tar.gz") as archive:
        assert archive.getnames() == ["r-1/nodes/n-0/reports/fine.txt"]


def test_a_log_is_looked_for_only_where_it_can_be(tmp_path: Path) -> None:
    """Names with separators, which only a forged event has, lead to no file."""
    put(tmp_path / "nodes/n-0/logs/c.t.main.out", "fine\n")
    put(tmp_path / "x.t.main.out", "outside\n")
    assert step_tail(tmp_path / "nodes", "n-0", ("c", "t", "main")) == "fine"
    assert step_tail(tmp_path / "nodes", "n-0", ("../../../x", "t", "main")) == ""
    assert step_tail(tmp_path / "nodes", "../nodes/n-0", ("c", "t", "main")) == ""


def test_the_bundle_is_the_same_twice_and_holds_nothing_private(tmp_path: Path) -> None:
    """The same results give the same archive, and what is private stays out of it."""
    run = tmp_path / "run"
    for name in ("spec.yml", "private/access.json", "nodes/b/logs/x", "nodes/a/reports/y", "events.jsonl", "other"):
        put(run / name, name)
    bundle.write(tmp_path / "1.tar.gz", run, "r")
    bundle.write(tmp_path / "2.tar.gz", run, "r")
    assert (tmp_path / "1.tar.gz").read_bytes() == (tmp_path / "2.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "1.tar.gz") as archive:
        assert archive.getnames() == ["r/spec.yml", "r/events.jsonl", "r/nodes/a/reports/y", "r/nodes/b/logs/x"]


@pytest.mark.parametrize("name", NAMES)
def test_the_report_as_data_is_json(name: str) -> None:
    """The report of any run is plain JSON with its verdict, exit code and every node."""
    state, judgement = judged(name)
    found = json.loads(data.dump(data.document(state, judgement)))
    assert (found["schema_version"], found["verdict"], found["exit_code"]) == (
        1,
        judgement.verdict,
        judgement.exit_code,
    )
    assert [n["name"] for n in found["nodes"]] == [n.name for n in state.in_order]
    assert (found["first_cause"] is None) == (judgement.exit_code == 0)


def test_the_report_for_a_person() -> None:
    """The report says the verdict, the first cause with the end of its log, what it induced, and where all lies."""
    found = text.render(*judged("fail"), "/state/runs/r", "line 1\n\x1b]0;owned\x07\x1b[2Jline 2\x9b31m\n")
    assert found == (
        "FAILED  hello-20261121-023122-7f3a in 10.8s  (nodes: 1 failed, 2 aborted)\n\n"
        "First cause: n-0 greeter.test.main: failed\n  exit code 3\n  the end of its log:\n"
        "    | line 1\n    | line 2\n\n"
        "What it induced:\n"
        "  n-1 greeter.test.main: aborted: the run was aborted\n"
        "  n-2 greeter.test.main: aborted: the run was aborted\n\n"
        "node  verdict  deploy  test     publish  finalise\n"
        "n-0   failed   passed  failed   skipped  passed\n"
        "n-1   aborted  passed  aborted  skipped  passed\n"
        "n-2   aborted  passed  aborted  skipped  passed\n\n"
        "Everything is in /state/runs/r\n"
    )


def test_a_lost_node_is_told_once_with_its_machine() -> None:
    """Of a node that fell silent the report names the machine to look at, and does not list it beside itself."""
    state, judgement = judged("lost-node")
    found = text.render(state, judgement, "/state/runs/r", "")
    assert f"First cause: n-1 on {state.nodes['n-1'].machine}: error\n" in found
    assert "Also wrong" not in found


def test_a_large_table_shows_what_did_not_pass() -> None:
    """Of very many nodes those that passed are counted, and those that did not are listed."""
    events: list[ev.Event] = [
        ev.NodePlanned(1.0, f"n-{i}", i, "m", "a", ["c"], [["test", "c", ["main"]]]) for i in range(1000)
    ]
    events += [ev.NodeEnded(2.0, f"n-{i}", "passed" if i != 500 else "failed", "") for i in range(1000)]
    events += [ev.ResultsCollected(3.0, f"n-{i}", 1, 1) for i in range(1000)]
    found = text.table(judge(fold(events)).nodes, colour=False).splitlines()
    assert [line.split()[0] for line in found] == ["node", "n-500", "..."]
    assert found[-1] == "... and 999 that passed"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;cm0gLXJm\x07clip", "clip"),
        ("\x1bP$q\x1b\\dcs\x1bcreset", "dcsreset"),
        ("50%\r100%\r\n", "50%\n100%\n"),
        ("a\x07b\x00c\x7f\x85", "a\ufffdb\ufffdc\ufffd\ufffd"),
        ("user\u202egpj.exe", "user\ufffdgpj.exe"),
        ("half \ud800", "half \ufffd"),
        ("\x1b", ""),
    ],
)
def test_text_of_nodes_is_harmless(raw: str, expected: str) -> None:
    """Nothing that a node prints can move the cursor, set a title, reach the clipboard or hide text."""
    assert harmless(raw) == expected
    assert "\n" not in harmless_line(raw)

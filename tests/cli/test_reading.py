"""The commands that read a run: list, status, logs, report; and how a run is found."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from testbed import events as ev
from testbed.errors import LabError, UsageError
from testbed.report.state import fold
from testbed.run import directory
from testbed.run.directory import RunDirectory, find, name_run, registered

Call = Callable[..., Result]
Record = Callable[..., RunDirectory]


def test_status_of_a_run_that_is_over(call: Call, record: Record) -> None:
    """The status says the verdict, the flag, and each node's end."""
    record("fail")
    assert call("status", "last").stdout == (
        "hello-20261121-023122-7f3a: failed, took 10.8s\n"
        "abort raised by n-0: n-0 greeter.test.main failed: exit code 3\n\n"
        "NODE  MACHINE  STATE    AT\n"
        "n-0   lab-0    failed   greeter.test.main: exit code 3\n"
        "n-1   lab-1    aborted  aborted by n-0\n"
        "n-2   lab-2    aborted  aborted by n-0\n"
    )


def test_status_of_a_run_that_goes_on(call: Call, record: Record) -> None:
    """While a run goes on its status names what each node is at and waits for, and no verdict."""
    run = record("fail")
    lines = run.events.read_text("utf-8").splitlines(keepends=True)
    run.events.write_text("".join(lines[:25]) + lines[25][:20], "utf-8")
    done = call("status", "last")
    assert "not ended" in done.stdout
    assert "greeter.test.main waits for get sent.n-0" in done.stdout
    found = json.loads(call("status", "last", "--json").stdout)
    assert (found["ended"], found["verdict"], found["nodes"][1]["state"]) == (False, None, "waiting")
    assert found["nodes"][1]["waits"][0]["names"] == ["sent.n-0"]


def test_a_broken_line_is_told_and_passed_over(record: Record) -> None:
    """A line that is no event does not stop the reader, and does not vanish either."""
    run = record("pass")
    with run.events.open("a") as stream:
        stream.write('{"event": "no-such"}\nnot json\n')
    state = fold(run.read_events())
    assert state.verdict == ev.PASSED
    assert [n.level for n in state.notices] == ["warning", "warning"]


@pytest.mark.parametrize(("case", "verdict"), [("pass", "passed"), ("fail", "failed"), ("controller-crash", "missing")])
def test_report(call: Call, record: Record, tmp_path: Path, case: str, verdict: str) -> None:
    """The report comes for a person, as JSON and as JUnit; a run without an end says so on stderr."""
    run = record(case)
    done = call("report", "last")
    assert (done.exit_code, done.stdout.split()[0]) == (0, verdict.upper())
    assert str(run.path) in done.stdout
    assert ("has not ended" in done.stderr) == (case == "controller-crash")
    found = json.loads(call("report", "last", "--json").stdout)
    assert (found["verdict"], found["ended"]) == (verdict, case != "controller-crash")
    assert call("report", "last", "--junit", str(tmp_path / "j.xml")).stdout == ""
    assert (tmp_path / "j.xml").read_text("utf-8") == call("report", "last", "--junit", "-").stdout
    assert call("report", "last", "--junit", str(tmp_path / "no" / "j.xml")).exit_code == 3
    assert call("report", "last", "--junit", "-", "--json").exit_code == 2


def test_the_report_shows_the_end_of_the_failing_log(call: Call, record: Record) -> None:
    """The first cause comes with the last lines of the step that failed."""
    logs = record("fail").logs("n-0")
    logs.mkdir(parents=True)
    (logs / "greeter.test.main.out").write_text("".join(f"line {i}\n" for i in range(100)))
    (logs / "greeter.test.main.err").write_text("no route to n-1\n")
    done = call("report", "last")
    assert "    | line 99\n    | no route to n-1\n" in done.stdout
    assert "line 70" not in done.stdout


def test_logs(call: Call, record: Record) -> None:
    """Logs come in the order of the steps, several with headlines, one alone byte for byte."""
    run = record("pass")
    for node in ("n-0", "n-1"):
        run.logs(node).mkdir(parents=True)
        for name in ("test.main.err", "test.main.out", "deploy.main.out"):
            (run.logs(node) / f"greeter.{name}").write_bytes(f"{node} {name} \x1b[31m\n".encode())
    assert call("logs", "last", "n-0").stdout == (
        "==> n-0 greeter.deploy.main.out <==\nn-0 deploy.main.out \x1b[31m\n\n"
        "==> n-0 greeter.test.main.out <==\nn-0 test.main.out \x1b[31m\n\n"
        "==> n-0 greeter.test.main.err <==\nn-0 test.main.err \x1b[31m\n"
    )
    for step in ("deploy", "deploy.main", "greeter.deploy.main", "greeter.deploy.main.out"):
        assert call("logs", "last", "n-1", "--step", step).stdout == "n-1 deploy.main.out \x1b[31m\n"
    assert call("logs", "last", "--step", "test").stdout.count("==>") == 4
    wrong = call("logs", "last", "--step", "tes")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "greeter.test.main.out" in wrong.stderr
    assert "it has n-0, n-1" in call("logs", "last", "n-2").stderr


def test_logs_that_are_not_home_yet(call: Call, record: Record) -> None:
    """Where a node's logs have not come home, that is said."""
    record("controller-crash")
    done = call("logs", "last", "n-1")
    assert done.exit_code == 2
    assert "the logs of n-1 are not home yet" in done.stderr


def test_list(call: Call, record: Record, tmp_path: Path) -> None:
    """All runs are listed, oldest first, those kept elsewhere too; runs whose directory is gone are not."""
    assert call("list").stdout == ""
    assert json.loads(call("list", "--json").stdout) == []
    record("fail", "b-20261121-023122-0002")
    record("pass", "a-20261122-023122-0001", tmp_path / "elsewhere")
    gone = record("pass", "c-20261120-023122-0003", tmp_path / "gone")
    for path in (gone.events, gone.path / "run-id"):
        path.unlink()
    found = json.loads(call("list", "--json").stdout)
    assert [(r["run"], r["verdict"], r["nodes"]) for r in found] == [
        ("b-20261121-023122-0002", "failed", 3),
        ("a-20261122-023122-0001", "passed", 2),
    ]
    assert found[1]["directory"] == str(tmp_path / "elsewhere")
    lines = call("list").stdout.splitlines()
    assert [line.split()[-1] for line in lines] == ["VERDICT", "failed", "passed"]


def test_a_run_is_found_by_name(record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id, a unique beginning, a path and `last` name a run; all else is answered with what was meant."""
    one = record("pass", "hello-20261121-023122-7f3a")
    two = record("pass", "hello-20261121-023123-0000", tmp_path / "two")
    for name in ("hello-20261121-023122-7f3a", "hello-20261121-023122", str(one.path)):
        assert find(name) == one
    monkeypatch.chdir(tmp_path)
    for name in ("last", str(tmp_path / "two"), "two", "./two", "hello-20261121-023123"):
        assert find(name).path == two.path
    with pytest.raises(UsageError, match="beginning of 2 runs") as caught:
        find("hello")
    assert "say which" in caught.value.help
    with pytest.raises(UsageError) as caught:
        find("hallo-20261121-023122-7f3a")
    assert "did you mean: hello-20261121-023122-7f3a" in caught.value.help
    for name in ("", "x", "..", str(tmp_path), "/no/such"):
        with pytest.raises(UsageError):
            find(name)


def test_a_run_directory_is_made(tmp_path: Path, home: Path) -> None:
    """A new run's directory keeps secrets to its owner, and takes nobody else's place."""
    made = directory.create("a-20261121-023122-7f3a")
    assert made.path == home / "runs" / "a-20261121-023122-7f3a"
    assert stat.S_IMODE(made.private.stat().st_mode) == 0o700
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").touch()
    with pytest.raises(UsageError, match="not empty"):
        directory.create("b-20261121-023122-7f3a", tmp_path / "taken")
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match="cannot make the run directory"):
        directory.create("b-20261121-023122-7f3a", tmp_path / "file")
    assert [d.run for d in registered()] == ["a-20261121-023122-7f3a"]


def test_a_run_has_a_name() -> None:
    """A run's id holds the deployment, the moment in UTC, and something random."""
    first, second = name_run("hello"), name_run("hello")
    assert first != second
    assert first[:12] == time.strftime("hello-%Y%m", time.gmtime())


def test_no_run_at_all(call: Call) -> None:
    """Before the first run, `last` says how to start one."""
    done = call("status", "last")
    assert (done.exit_code, done.stderr) == (2, "error: there is no run yet\n  help: start one: testbed run SPEC\n")


def test_names_of_nodes_cannot_lead_logs_astray(call: Call, record: Record) -> None:
    """A link among the logs is not followed."""
    run = record("pass")
    run.logs("n-0").mkdir(parents=True)
    (run.logs("n-0") / "greeter.test.main.out").symlink_to("/etc/passwd")
    done = call("logs", "last", "n-0")
    assert (done.exit_code, done.stdout) == (2, "")

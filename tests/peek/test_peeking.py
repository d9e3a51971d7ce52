"""Whoever peeks at a step sees what it writes, byte for byte, and costs nothing but that."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.agent.workspace import read_pid
from testbed.coord.chunks import EVERY, Position
from testbed.coord.keys import end_of
from tests.agent.conftest import PYTHON38
from tests.agent.machine import Machine, step
from tests.agent.test_stillness import Asking
from tests.coord.etcd_process import EtcdProcess
from tests.peek.blind import blind_python
from tests.peek.conftest import Looker, digest

Look = Callable[..., Looker]

_NEEDS_38 = pytest.mark.skipif(not PYTHON38, reason="no Python 3.8 is here")


def log(machine: Machine, name: str) -> Path:
    """Where a step of the machine's node writes."""
    return Path(machine.workspace.logs) / name


def begin(machine: Machine, script: str, **more: object) -> None:
    """Start an agent with a step that ends when the value `end` is set; its node stays until `leave` is."""
    first = step("test", "main", script + "\ntestbed get -b end >/dev/null", continue_on_error=True)
    assert machine.start(machine.plan(first, step("publish", "main", "testbed get -b leave"), **more))["ok"]
    machine.await_line("step_started a.test.main")


def test_output_is_seen_as_it_is_written(machine: Machine, look: Look) -> None:
    """Both streams of a running step are seen while it runs, from their beginning, and then how it ended."""
    begin(machine, "echo one; echo two >&2; testbed get -b more; echo three; testbed get -b end; exit 3")
    looker = look(machine)
    looker.await_text(b"one\n")
    looker.await_text(b"two\n", stream="err")
    assert b"three" not in looker.logs["a.test.main", "out"]
    machine.scope.set("more", b"m")
    looker.await_text(b"three\n")
    machine.scope.set("end", b"e")
    assert looker.await_end().well
    (ended,) = looker.ended
    assert (ended.step, ended.verdict, ended.exit_code) == ("a.test.main", "failed", 3)
    assert looker.logs == {("a.test.main", "out"): b"one\nm\nthree\ne\n", ("a.test.main", "err"): b"two\n"}


def test_nobody_looking_costs_nothing(machine: Machine, look: Look) -> None:
    """A chatty step moves no revision of etcd, neither before somebody has looked nor after he has gone."""
    begin(machine, "talk() { seq 100000; touch said-$1; testbed get -b go-$1; }; talk 1; talk 2; echo now; talk 3")
    machine.await_line("wait_started get go-1")
    said = [e["event"] for e in machine.events()]
    assert (said.count("wait_started"), machine.store.range("x").revision) == (1, last_write(machine))
    looker = look(machine, lines=0)
    looker.wait(lambda: bool(looker.begun))
    looker.close()
    assert not machine.store.range(machine.keys.asks("n0"), end_of(machine.keys.asks("n0"))).entries
    machine.scope.set("go-1", b"")
    machine.await_line("wait_started get go-2")
    before = machine.store.range("x").revision
    assert before == last_write(machine)
    machine.scope.set("go-2", b"")
    machine.await_line("wait_started get go-3")
    wrote = [c for c in changes(machine, before + 1) if not c.startswith((machine.keys.events, machine.keys.nodes))]
    assert wrote == [machine.keys.value("go-2")]
    for key in ("go-3", "end", "leave"):
        machine.scope.set(key, b"")
    machine.await_end()
    assert not [c for c in changes(machine, before + 1) if "/peek" in c]
    assert Path(machine.workspace.path, "said-3").exists()


def last_write(machine: Machine) -> int:
    """The newest revision of any key of the run."""
    return max(e.revision for e in machine.store.range(*machine.keys.span).entries)


def changes(machine: Machine, revision: int) -> list[str]:
    """The keys that were written from that revision on, up to now."""
    from testbed.coord.store import Put, Span

    mark = machine.keys.value("mark")
    machine.store.commit([Put(mark, b"")])
    found: list[str] = []
    watch = machine.store.watch([Span(*machine.keys.span, revision=revision)])
    for batch in watch:
        found += [c.key for c in batch]
        if mark in found:
            break
    watch.close()
    return [key for key in found if key != mark]


def test_steps_by_name(machine: Machine, look: Look) -> None:
    """A step is named with or without its configuration; one that is over is shown whole, one to come is awaited."""
    plan = machine.plan(
        step("deploy", "pre", "echo before"), step("deploy", "main", "seq 3"),
        step("test", "main", "testbed get -b go; echo on"), step("publish", "main", "echo last"),
        step("publish", "post", "testbed get -b leave"),
    )  # fmt: skip
    assert machine.start(plan)["ok"]
    machine.await_line("step_started a.test.main")
    over, target, coming = (look(machine, step=s) for s in ("deploy.main", "deploy", "a.publish.main"))
    strange, every = look(machine, step="deploy.mian"), look(machine, step=EVERY)
    assert over.await_end().well
    assert over.logs == {("a.deploy.main", "out"): b"1\n2\n3\n"}
    assert target.await_end().well
    assert [e.step for e in target.ended] == ["a.deploy.pre", "a.deploy.main"]
    assert "a.deploy.main" in strange.await_end().reason
    machine.scope.set("go", b"!")
    assert coming.await_end().well
    assert coming.logs == {("a.publish.main", "out"): b"last\n"}
    every.await_text(b"last\n", step="a.publish.main")
    machine.scope.set("leave", b"")
    every.await_end()
    assert list(every.logs.values())[:4] == [b"before\n", b"1\n2\n3\n", b"!\non\n", b"last\n"]


def test_last_lines_and_offsets(machine: Machine, look: Look) -> None:
    """A look begins with the last lines, or where another one stopped; streams can be chosen."""
    begin(machine, "seq 30; echo oops >&2; printf half; testbed get -b go; echo full")
    machine.await_line("wait_started get go")
    some, none, there = look(machine, lines=3), look(machine, lines=0), look(machine, streams=("err",))
    some.await_text(b"29\n30\nhalf")
    there.await_text(b"oops\n", stream="err")
    none.wait(lambda: bool(none.begun))
    at = none.begun[0].out
    beyond = look(machine, positions={"n0": Position("a.test.main", at - 4, 0)}, streams=("out",))
    beyond.await_text(b"half")
    machine.scope.set("go", b"-")
    machine.scope.set("end", b"")
    for looker in (some, none, there, beyond):
        looker.await_end()
    assert none.logs["a.test.main", "out"] == b"-\nfull\n"
    assert beyond.logs == {("a.test.main", "out"): b"half-\nfull\n"}
    assert set(there.logs) == {("a.test.main", "err")}


def test_several_see_everything(machine: Machine, look: Look) -> None:
    """Each of several lookers sees all of it, at his own pace, whatever the others do."""
    begin(machine, "testbed get -b go; seq 300000")
    lookers = [look(machine, window=w) for w in (4096, 65536, 1 << 20)]
    for looker in lookers:
        looker.wait(lambda looker=looker: bool(looker.begun))  # type: ignore[misc]
    goes = look(machine)
    goes.wait(lambda: bool(goes.begun))
    goes.pause()
    machine.scope.set("go", b"")
    for looker in lookers:
        looker.await_text(b"\n300000\n")
    goes.close()
    machine.scope.set("end", b"")
    for looker in lookers:
        looker.await_end()
    whole = digest(log(machine, "a.test.main.out"))
    assert {looker.sums["a.test.main", "out"].hexdigest() for looker in lookers} == {whole}


def test_binary_output_is_unharmed(machine: Machine, look: Look) -> None:
    """Random bytes, zeros, a line of 10 MB without an end and broken UTF-8 come through as they are."""
    begin(machine, "head -c 3000000 /dev/urandom; head -c 10000000 /dev/zero; printf '\\377\\r50%%\\r\\033[2J\\200'")
    looker = look(machine)
    looker.keeps = False
    looker.wait(lambda: bool(looker.begun))
    machine.scope.set("end", b"")
    looker.await_end()
    assert looker.sums["a.test.main", "out"].hexdigest() == digest(log(machine, "a.test.main.out"))
    assert looker.ended[0].out == 13000000 + 11


def test_who_stops_lets_another_take_over(machine: Machine, look: Look) -> None:
    """A second looker that begins where the first one stopped continues to the byte."""
    begin(machine, "seq 100000; testbed get -b go; seq 100000")
    first = look(machine, streams=("out",))
    first.await_text(b"\n100000\n")
    first.close()
    place = first.peek.position("n0")
    assert place is not None
    machine.scope.set("go", b"")
    machine.scope.set("end", b"")
    second = look(machine, streams=("out",), positions={"n0": place})
    second.await_end()
    key = ("a.test.main", "out")
    assert first.logs[key] + second.logs[key] == log(machine, "a.test.main.out").read_bytes()


def test_death_of_the_agent_ends_the_look(machine: Machine, look: Look) -> None:
    """An agent that dies without a word ends its lookers by its lease, with the reason; all it sent was seen."""
    begin(machine, "seq 10", liveness=2.0)
    looker = look(machine)
    looker.await_text(b"10\n")
    os.kill(read_pid(machine.workspace) or 0, 9)
    gone = looker.await_end()
    assert not gone.well
    assert "gone without a word" in gone.reason
    assert looker.logs["a.test.main", "out"] == log(machine, "a.test.main.out").read_bytes()


def test_a_node_that_is_not_there(machine: Machine, look: Look) -> None:
    """Of a node that has not started it is said that it is waited for, and after the patience that this was in vain."""
    looker = look(machine, patience=3.0)
    gone = looker.await_end()
    assert not gone.well
    assert looker.notes == ["has not started yet; waiting for up to 3 s"]
    assert gone.reason == "has not started yet; waited for 3 s"


def test_a_node_that_starts_later(machine: Machine, look: Look) -> None:
    """Who looks before the node has started sees it from its beginning."""
    looker = look(machine, step=EVERY)
    stay = step("publish", "main", "testbed get -b leave")
    plan = machine.plan(step("init", "main", "echo first"), step("test", "main", "echo second"), stay)
    assert machine.start(plan)["ok"]
    looker.wait(lambda: len(looker.logs) == 2)
    machine.scope.set("leave", b"")
    assert looker.await_end().well
    assert list(looker.logs.values())[:2] == [b"first\n", b"second\n"]


def test_background_output_does_not_hold_the_end(machine: Machine, look: Look) -> None:
    """What a step's processes in the background go on to write is none of the step: its end is told all the same."""
    plan = machine.plan(step("init", "main", "yes & testbed get -b go"), step("test", "main", "testbed get -b end"))
    assert machine.start(plan)["ok"]
    looker = look(machine, step="init.main", lines=0)
    looker.keeps = False
    looker.wait(lambda: bool(looker.sums))
    machine.scope.set("go", b"")
    assert looker.await_end().well
    assert looker.ended[0].exit_code == 0
    machine.scope.set("end", b"")
    machine.await_end()


def test_logs_that_are_none_are_not_read(machine: Machine, look: Look) -> None:
    """A step that puts a link or a pipe in its log's place shows nothing of what that leads to."""
    script = "cd .testbed/logs; rm a.test.main.*; ln -s /etc/passwd a.test.main.out; mkfifo a.test.main.err"
    begin(machine, script)
    machine.await_line("wait_started get end")
    looker = look(machine)
    machine.scope.set("end", b"")
    assert looker.await_end().well
    assert looker.logs == {}


def test_a_lost_lease_is_asked_for_anew(machine: Machine, look: Look) -> None:
    """A client that was cut off for longer than its lease lives asks again from where it is, to the byte."""
    begin(machine, "seq 50000; testbed get -b go; seq 50000")
    looker = look(machine)
    looker.await_text(b"\n50000\n")
    lease = looker.peek._session.lease  # type: ignore[union-attr]
    machine.store.client.call("/v3/lease/revoke", {"ID": lease.id})
    looker.wait(lambda: any("asked again" in note for note in looker.notes))
    machine.scope.set("go", b"")
    machine.scope.set("end", b"")
    assert looker.await_end().well
    assert looker.logs["a.test.main", "out"] == log(machine, "a.test.main.out").read_bytes()


@pytest.mark.parametrize("python", [sys.executable, pytest.param(PYTHON38, marks=_NEEDS_38)], ids=["own", "3.8"])
def test_memory_of_a_peeked_agent(
    shared_etcd: EtcdProcess, machines: Callable[..., Machine], look: Look, python: str
) -> None:
    """To stream random bytes to three lookers an agent needs less than 3 MB; it has loaded nothing of it before."""
    machine = machines(shared_etcd.url, python=python)
    begin(machine, "head -c 4000000 /dev/urandom")
    machine.await_line("wait_started get end")
    agent = Path(f"/proc/{read_pid(machine.workspace)}")
    assert "_ctypes" not in (agent / "maps").read_text()
    before = kilobytes(agent, "VmRSS")
    lookers = [look(machine) for _ in range(3)]
    for looker in lookers:
        looker.await_offset(4000000)
    assert kilobytes(agent, "VmHWM") < before + 3 * 1024


def test_who_is_still_shown_something_holds_off_a_stall(machine: Machine, look: Look) -> None:
    """A node whose output is still on its way to somebody does not stand; once he has all of it, it does."""
    begin(machine, "seq 300000; testbed get -b go")
    machine.await_line("wait_started get go")
    looker = look(machine, window=4096)
    looker.await_offset(4096)
    looker.pause()
    asking = Asking(machine)
    asking.until(lambda answer: not answer["able"])  # who reads nothing holds off nothing
    before = asking.ask()["ran"]
    looker.resume()
    looker.await_text(b"\n300000\n")
    assert asking.ask()["ran"] != before
    asking.until(lambda answer: not answer["able"])
    asking.close()


def test_where_the_kernel_does_not_tell(
    shared_etcd: EtcdProcess, machines: Callable[..., Machine], look: Look, tmp_path: Path
) -> None:
    """On a machine without inotify what is written is seen all the same, and that it takes longer is said."""
    machine = machines(shared_etcd.url, python=blind_python(tmp_path))
    begin(machine, "echo one; testbed get -b more; echo two >&2")
    looker = look(machine)
    looker.await_text(b"one\n")
    machine.scope.set("more", b"m\n")
    looker.await_text(b"one\nm\n")
    looker.await_text(b"two\n", stream="err")
    assert any("does not tell when logs grow" in note for note in looker.notes)
    machine.scope.set("end", b"")
    assert looker.await_end().well


def kilobytes(process: Path, what: str) -> int:
    """A figure of a process's memory."""
    lines = (process / "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1])


def test_a_screen_listens(machine: Machine) -> None:
    """The screen's source of lines shows the last ones of the running step, harmless, and those that come."""
    import queue

    from testbed_tui.logs import NOTE, LogLine, Wanted
    from testbed_tui.peeked import PeekedLogs

    begin(machine, "seq 3; printf 'x\\033[2Jy\\n'; testbed get -b go")
    heard: queue.Queue[LogLine] = queue.Queue()
    listening = PeekedLogs(machine.access, machine.run).listen(
        Wanted(("n0",)), lambda lines: [heard.put(line) for line in lines if line.stream != NOTE]
    )
    assert [heard.get(timeout=30).text for _ in range(4)] == ["1", "2", "3", "xy"]
    machine.scope.set("go", b"on\n")
    last = heard.get(timeout=30)
    assert last == LogLine("n0", "a.test.main", "out", "on", last.at)
    listening.close()

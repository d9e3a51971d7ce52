"""Machines that fail: each is named with what was tried, why, and what to do; the others finalise, nothing is left."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from machines_bench import Bench, Done, left_on, on_host, read_until

from testbed import events
from testbed.lab import practice

pytestmark = pytest.mark.lab

STEADY = """\
deployment: steady
finalise: all
stall: off
configurations:
  steady:
    test: testbed get --block never --timeout 100s
    finalise: echo tidied > "$TESTBED_REPORTS/tidied.txt"
nodes:
  good: {configurations: [steady]}
  bad:  {configurations: [steady]}
"""


@pytest.fixture(scope="module")
def lab(breakable_lab: Callable[[int], practice.Lab]) -> practice.Lab:
    """Two hosts; breaks are undone after each test. The second is the one to break."""
    return breakable_lab(2)


@contextmanager
def broken(lab: practice.Lab, host: str, script: str, undo: str) -> Iterator[None]:
    """Do a script on the host, and undo it."""
    on_host(lab, host, script)
    try:
        yield
    finally:
        on_host(lab, host, undo)


def run_pair(
    bench: Bench, lab: practice.Lab, variables: Mapping[str, Any], *arguments: str, spec: str = STEADY
) -> Done:
    """The run of a good and a bad node; ``variables`` are the bad machine's."""
    good, bad = (h.name for h in lab.hosts[:2])
    inventory = bench.inventory(lab, {good: {}, bad: variables})
    return bench.run(bench.spec(spec), "-i", inventory, *arguments)


def check(done: Done, lab: practice.Lab, cause: str, words: tuple[str, ...], bad: str = "") -> events.MachineFailed:
    """What holds whatever broke: exit 3, the machine's own message first, the good node's results at home."""
    bad = bad or lab.hosts[1].name
    assert done.code == 3, done.said
    assert "Traceback" not in done.said
    failures: list[events.MachineFailed] = done.told(events.MachineFailed)
    assert [(f.machine, f.cause) for f in failures] == [(bad, cause)], failures
    failure = failures[0]
    first = done.out.partition("First cause: ")[2].partition("\n\n")[0]
    assert bad in first
    for word in words:
        assert word in f"{failure.reason} {failure.tried} {failure.advice}"
    for part in (failure.reason, failure.tried, failure.advice):
        assert part, failure
        assert " ".join(part.split()) in " ".join(done.out.split()), "the report keeps it to itself"
    assert done.report("good", "tidied.txt") == "tidied\n"
    assert [e.verdict for e in done.told(events.NodeEnded, "good")] == ["aborted"]
    assert done.told(events.ResultsCollected, "good")
    assert not done.told(events.NodeEnded, "bad")
    return failure


NO_PYTHON = """
touch /run/not-a-program
for python in /usr/bin/python3* /usr/local/bin/python3*; do
    if [ -f "$python" ] && [ ! -L "$python" ]; then mount --bind /run/not-a-program "$python"; fi
done
"""
PYTHON_BACK = """
for python in /usr/bin/python3* /usr/local/bin/python3*; do
    if mountpoint -q "$python"; then umount "$python"; fi
done
rm /run/not-a-program
"""
DAMAGES = {
    # name: (script, undo, cause, words)
    "no-python": (NO_PYTHON, PYTHON_BACK, "no_python", ("no Python 3.8 or newer", "install")),
    "full-disk": (
        "mount -t tmpfs -o size=64k,mode=700 tmpfs /root && ! dd if=/dev/zero of=/root/fill bs=1k 2>/dev/null",
        "umount /root",
        "disk_full",
        ("No space left on device", "make room"),
    ),
    "read-only-home": (
        "mount -o remount,ro /root",
        "mount -o remount,rw /root",
        "read_only",
        ("Read-only file system", "testbed_root"),
    ),
    "noexec-home": (
        "mount -o remount,noexec /root",
        "mount -o remount,exec /root",
        "permission",
        ("mounted noexec", "testbed_root"),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_machine(bench: Bench, lab: practice.Lab, damage: str) -> None:
    """No Python, a full disk, a read-only or noexec home: told as what it is, with a way out; nothing stays."""
    script, undo, cause, words = DAMAGES[damage]
    bad = lab.hosts[1]
    with broken(lab, bad.name, script, undo):
        done = run_pair(bench, lab, {"ansible_python_interpreter": "auto_silent"} if cause == "no_python" else {})
    failure = check(done, lab, cause, words)
    assert bad.address in failure.tried
    assert left_on(lab) == {}


def test_refused_login(bench: Bench, lab: practice.Lab, tmp_path: Path) -> None:
    """A key that the machine does not know: who was refused where, and which settings to check."""
    key = tmp_path / "other-key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, stdin=subprocess.DEVNULL)
    done = run_pair(bench, lab, {"ansible_ssh_private_key_file": str(key)})
    address = lab.hosts[1].address
    check(done, lab, "login", (f"{address} refuses the login of root", str(key), "ansible_ssh_private_key_file"))
    assert left_on(lab) == {}


def test_changed_host_key(bench: Bench, lab: practice.Lab, tmp_path: Path) -> None:
    """A host key other than the known one is no machine to log in to; the advice names the line to remove."""
    good, bad = lab.hosts[:2]
    known = {
        line.split()[0]: line.split(None, 1)[1] for line in (lab.directory / "known_hosts").read_text().splitlines()
    }
    swapped = tmp_path / "known_hosts"
    first, second = known
    swapped.write_text(f"{first} {known[first]}\n{second} {known[first]}\n")
    arguments = f"-o UserKnownHostsFile={swapped} -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes"
    done = run_pair(bench, lab, {"ansible_ssh_common_args": f"{arguments} -o IdentitiesOnly=yes"})
    check(done, lab, "host_key", ("host key", bad.address, "ssh-keygen", str(swapped), "installed anew"))
    assert good.address not in done.told(events.MachineFailed)[0].reason
    assert left_on(lab) == {}


FIREWALL = """
ip rule add priority 10 ipproto tcp sport 22 lookup main
ip rule add priority 20 to {controller} ipproto tcp {how}
"""
NO_FIREWALL = "ip rule del priority 10; ip rule del priority 20"


@pytest.mark.parametrize("how", ["unreachable", "prohibit"])
def test_firewall_before_etcd(bench: Bench, lab: practice.Lab, how: str) -> None:
    """A machine that SSH reaches but that does not reach etcd: the address it tried, and what to open or to set."""
    firewall = FIREWALL.format(controller=lab.controller, how=how)
    with broken(lab, lab.hosts[1].name, firewall, NO_FIREWALL):
        done = run_pair(bench, lab, {}, spec=f"outage: 4s\n{STEADY}")  # for so long it is looked for
    failure = check(done, lab, "etcd", (lab.controller, "firewall", "--etcd-advertise"))
    assert "etcd" in failure.reason
    assert left_on(lab) == {}


def test_killed_machine(bench: Bench, breakable_lab: Callable[[int], practice.Lab]) -> None:
    """A machine without power: its address, that it does not answer, and how to look."""
    lab = breakable_lab(2)
    good, bad = lab.hosts
    practice.kill(lab, bad.name)
    done = run_pair(bench, lab, {})
    check(done, lab, "unreachable", (bad.address, "is the machine on", f"root@{bad.address}:22"))
    assert left_on(lab, good.name) == {}


def test_machines_lost_in_mid_run(breakable_lab: Callable[[int], practice.Lab], tmp_path: Path) -> None:
    """Power gone, or cable out, in mid-run: told by the lease as lost, exit 3; the others finalise, results at home."""
    lab = breakable_lab(4)
    pairs = {practice.kill: lab.hosts[:2], practice.cut: lab.hosts[2:]}

    def lose(break_it: Callable[[practice.Lab, str], None]) -> Done:
        good, bad = pairs[break_it]
        folder = tmp_path / break_it.__name__
        folder.mkdir()
        bench = Bench(folder)
        inventory = bench.inventory(lab, {good.name: {}, bad.name: {"ansible_ssh_timeout": 5}})
        process, directory = bench.begin(bench.spec(f"liveness: 5s\n{STEADY}"), "-i", inventory)
        seen = read_until(process, "bad  waits: get never")
        break_it(lab, bad.name)
        return bench.finish(process, directory, seen)

    with ThreadPoolExecutor(2) as workers:
        runs = dict(zip(pairs, workers.map(lose, pairs), strict=True))
    for break_it, done in runs.items():
        good, bad = pairs[break_it]
        assert done.code == 3, done.said
        lost = done.told(events.NodeLost)
        assert [e.node for e in lost] == ["bad"]
        assert "lease" in lost[0].reason
        first = done.out.partition("First cause: ")[2].partition("\n\n")[0]
        assert first.startswith("bad")
        missing = done.told(events.ResultsMissing)
        assert [e.node for e in missing] == ["bad"]
        assert bad.address in missing[0].reason
        assert done.report("good", "tidied.txt") == "tidied\n"
        assert left_on(lab, good.name) == {}
    cut = pairs[practice.cut][1]
    practice.join(lab, cut.name)
    found = Bench(tmp_path).call("clean", runs[practice.cut].directory)
    assert found.code == 0, found.said
    assert left_on(lab, cut.name) == {}, "`testbed clean` did not end what had been out of reach"


CROWD = """\
deployment: crowd
finalise: all
configurations:
  one: {test: testbed barrier all}
nodes:
  n: {configurations: [one], count: 8}
"""


def test_crowd_before_one_ssh_server(bench: Bench, lab: practice.Lab) -> None:
    """An SSH server that turns away whoever comes third while two log in lets all nodes in, one after the other."""
    host = lab.hosts[0].name
    picky = (
        "sed 's/^Port.*/Port 2222/; s/^MaxStartups.*/MaxStartups 2:100:2/; s/^PidFile.*/PidFile none/' "
        "/run/host/sshd_config >/run/picky; { /usr/sbin/sshd -D -e -f /run/picky 2>&1 & echo $! >/run/picky.pid; } | "
        "{ read -r listening; exec 3<&0 >/dev/null 2>&1; cat <&3 & }"
    )
    with broken(lab, host, picky, "kill $(cat /run/picky.pid); rm /run/picky*"):
        known = f"-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -i {lab.directory}/id_ed25519"
        aliases = {
            f"place-{n}": {"lab_host": host, "ansible_port": 2222, "ansible_ssh_common_args": known} for n in range(8)
        }
        done = bench.run(bench.spec(CROWD), "-i", bench.inventory(lab, aliases))
    assert done.code == 0, done.said
    assert left_on(lab) == {}

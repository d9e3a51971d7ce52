"""Whole runs on real SSH hosts: the examples, other users, mixed and pinned machines."""

from __future__ import annotations

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from machines_bench import EXAMPLES, PATIENCE, Bench, left_on, read_until

from testbed import events
from testbed.lab import hosts, practice

pytestmark = pytest.mark.lab


def sshd_log(lab: practice.Lab, host: str) -> str:
    """What a host's SSH server has seen."""
    return (lab.directory / "hosts" / host / "sshd.log").read_text()


@pytest.fixture
def dicom() -> Path:
    """The example, where its programs are installed."""
    if shutil.which("storescp") is None:
        pytest.skip("the Debian package dcmtk is not installed")
    return EXAMPLES / "dicom" / "deployment.yml"


def test_hello_over_ssh(bench: Bench, practice_lab: practice.Lab) -> None:
    """The first example runs on machines as it does on local workspaces, and hosts it does not need see no login."""
    unused = {h.name: sshd_log(practice_lab, h.name) for h in practice_lab.hosts[2:]}
    done = bench.run(EXAMPLES / "hello/deployment.yml", "-i", practice_lab.inventory)
    assert done.code == 0, done.said
    machines = [e.host for e in done.told(events.NodeStarted)]
    assert sorted(machines) == sorted(h.name for h in practice_lab.hosts[:2])
    assert {name: sshd_log(practice_lab, name) for name in unused} == unused
    assert left_on(practice_lab) == {}


def test_a_long_way_to_temporary_files(bench: Bench, practice_lab: practice.Lab, tmp_path: Path) -> None:
    """Machines that Ansible comes back to are reached also where TMPDIR is too long a path for SSH's sockets."""
    spec = tmp_path / "deployment.yml"
    spec.write_text(
        "deployment: long-way\nconfigurations:\n  c: {deploy: {ansible: [{ansible.builtin.ping: {}}]}}\n"
        "nodes:\n  a: {configurations: [c]}\n"
    )
    far = tmp_path / ("far" * 40)
    far.mkdir()
    bench.environment["TMPDIR"] = str(far)
    done = bench.run(spec, "-i", practice_lab.inventory)
    assert done.code == 0, done.said
    assert list(far.iterdir()) == []
    assert left_on(practice_lab) == {}


def test_dicom(bench: Bench, practice_lab: practice.Lab, dicom: Path, tmp_path: Path) -> None:
    """Studies go from two machines to a third; the server's own JUnit is merged into the run's."""
    junit = tmp_path / "junit.xml"
    done = bench.run(dicom, "-i", practice_lab.inventory, "-p", "studies=4", "--junit", junit)
    assert done.code == 0, done.said
    assert "modality-1: 4 of 4 studies arrived" in done.log("server", "dicom-server.test.main")
    suites = {suite.get("name"): suite for suite in ET.parse(junit).getroot()}
    assert list(suites) == ["server", "server.dicom-store", "modality-0", "modality-1"]
    own = suites["server.dicom-store"]
    assert own.get("hostname") == suites["server"].get("hostname") == practice_lab.hosts[0].name
    assert [case.get("name") for case in own] == ["studies of modality-0", "studies of modality-1"]
    assert not [case for case in own if list(case)], "a failure among the server's own cases"
    assert left_on(practice_lab) == {}


def test_dicom_server_that_dies(bench: Bench, practice_lab: practice.Lab, dicom: Path) -> None:
    """The service's death ends the run by itself, red, as the first cause, with every node's logs at home."""
    done = bench.run(dicom, "-i", practice_lab.inventory, "-p", "die_after=5", "-p", "studies=10")
    assert done.code == 1, done.said
    first = done.out.partition("First cause: ")[2].partition("\n\n")[0]
    assert first.startswith("server dicom-server.service.store: failed")
    assert "the service ended while it was needed: killed by SIGKILL" in first
    for node in ("server", "modality-0", "modality-1"):
        assert done.told(events.ResultsCollected, node), f"{node}'s results are not home"
        assert list((done.directory / "nodes" / node / "logs").glob("*.test.main.err"))
    assert left_on(practice_lab) == {}


def test_etcd_cluster(bench: Bench, practice_lab: practice.Lab) -> None:
    """Three machines form an etcd cluster that outlives its leader."""
    if shutil.which("etcd") is None or shutil.which("etcdctl") is None:
        pytest.skip("the Debian packages etcd-server and etcd-client are not installed")
    done = bench.run(EXAMPLES / "etcd-cluster/deployment.yml", "-i", practice_lab.inventory)
    assert done.code == 0, done.said
    roles = [done.log(f"etcd-{n}", "member.test.main") for n in range(3)]
    assert sum("is the leader" in text for text in roles) == 1
    assert sum("was killed" in text for text in roles) == 2
    assert left_on(practice_lab) == {}


WHO = """\
deployment: who
finalise: all
configurations:
  who:
    init: id -un > who.txt; pwd >> who.txt
    test:
      pre: testbed set "at.$TESTBED_NODE" "$(hostname)"
      run: |
        for node in $TESTBED_NODES; do echo "$node $(testbed get --block "at.$node" -t 60s)"; done > where.txt
        cp who.txt where.txt "$TESTBED_REPORTS/"
nodes:
{nodes}
"""


@pytest.mark.parametrize(
    ("login", "method", "wanted"),
    [
        ("root", "su", "lab-user"),
        ("root", "sudo", "lab-user"),
        ("lab-admin", "sudo", "root"),
        ("lab-admin", "sudo", "lab-user"),
    ],
)
def test_node_become(bench: Bench, practice_lab: practice.Lab, login: str, method: str, wanted: str) -> None:
    """`become: true` on a node runs its agent as the user that the inventory names, in that user's home."""
    host = practice_lab.hosts[3].name
    become = {"ansible_user": login, "ansible_become_method": method, "ansible_become_user": wanted}
    spec = bench.spec(WHO.replace("{nodes}", "  one: {configurations: [who], become: true}"))
    done = bench.run(spec, "-i", bench.inventory(practice_lab, {host: become}))
    assert done.code == 0, done.said
    home = "/root" if wanted == "root" else f"/home/{wanted}"
    user, folder = done.report("one", "who.txt").split()
    assert user == wanted
    assert folder.startswith(f"{home}/.testbed/")
    assert left_on(practice_lab) == {}


def test_mixed_pinned_and_shared_machines(bench: Bench, practice_lab: practice.Lab) -> None:
    """One inventory may hold this machine, SSH hosts and several names for one of them; pins hold, the rest follow."""
    first, second, third = (h.name for h in practice_lab.hosts[:3])
    hosts = {
        "here": {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"},
        first: {},
        "twin-a": {"lab_host": second},
        "twin-b": {"lab_host": second},
        third: {},
    }
    nodes = (
        f"  pinned: {{configurations: [who], machine: {third}}}\n"
        "  free:   {configurations: [who], count: 2}\n"
        "  twin:   {configurations: [who], count: 2, machine: [twin-b, twin-a]}"
    )
    done = bench.run(
        bench.spec(WHO.replace("{nodes}", nodes)), "-i", bench.inventory(practice_lab, hosts),
        "--etcd-advertise", practice_lab.controller,
    )  # fmt: skip
    assert done.code == 0, done.said
    planned = {e.node: e.machine for e in done.told(events.NodePlanned)}
    assert planned == {
        "pinned": third, "free-0": "here", "free-1": first, "twin-0": "twin-b", "twin-1": "twin-a",
    }  # fmt: skip
    where = dict(line.split() for line in done.report("pinned", "where.txt").splitlines())
    assert {node: where[node] for node in ("pinned", "free-1", "twin-0", "twin-1")} == {
        "pinned": third, "free-1": first, "twin-0": second, "twin-1": second,
    }  # fmt: skip
    assert where["free-0"] not in {h.name for h in practice_lab.hosts}
    assert left_on(practice_lab) == {}


LOOKED_AT = """
deployment: looked-at
timeout: 4m
configurations:
  c: {test: echo written there; testbed get --block go}
nodes:
  n: {configurations: [c], count: 2}
"""


def test_seen_from_another_machine(bench: Bench, practice_lab: practice.Lab, tmp_path: Path) -> None:
    """With a copy of the run's access file a machine that knows nothing else of the run shows what its nodes write."""
    process, directory = bench.begin(bench.spec(LOOKED_AT), "-i", practice_lab.inventory)
    before = read_until(process, "n-0  waits: get go")
    access = tmp_path / "access.json"
    shutil.copy(directory / "private" / "access.json", access)
    name = (directory / "run-id").read_text().strip()
    init = hosts.init_of(practice_lab.directory, practice_lab.hosts[-1].name)
    assert init is not None
    elsewhere = ["nsenter", "-t", str(init.pid), "-n", sys.executable, "-m", "testbed"]
    look = subprocess.Popen(
        [*elsewhere, "peek", name, "n-0", "--access", access, "--from-start"], stdout=subprocess.PIPE, text=True,
        env={**bench.environment, "TESTBED_STATE_HOME": str(tmp_path / "nothing-here")},
    )  # fmt: skip
    assert look.stdout is not None
    try:
        assert look.stdout.readline() == "written there\n"
        assert bench.call("set", "--run", name, "go", "now").code == 0
        assert bench.finish(process, directory, before).code == 0
        assert (look.stdout.read(), look.wait(PATIENCE)) == ("now\n", 0)
    finally:
        look.kill()
        look.wait()
        look.stdout.close()

"""The practice lab: hosts that are machines of their own, and nothing of them afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.errors import LabError, UsageError
from testbed.lab import hosts, network, practice

lab_test = pytest.mark.lab


def ssh(
    lab: practice.Lab, name: str, command: str, *options: str, user: str = "root"
) -> subprocess.CompletedProcess[str]:
    """Run a command on a host as its inventory says, host-key checking on."""
    arguments = ["ssh", "-i", f"{lab.directory}/id_ed25519", "-o", f"UserKnownHostsFile={lab.directory}/known_hosts"]
    arguments += ["-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
    target = f"{user}@{lab.host(name).address}"
    return subprocess.run(
        [*arguments, *options, target, command], check=False, capture_output=True, text=True, timeout=60
    )


def traces(name: str) -> list[str]:
    """What there is on this machine that bears a lab's name: files, network devices, processes."""
    found = [str(practice.STATE / name)] if (practice.STATE / name).exists() else []
    ours = {network.bridge_name(name), *(network.cable_name(name, n) for n in range(1, 10))}
    found += sorted(network.links() & ours)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(practice.STATE / name).encode() in words:
            found.append(f"process {process.name}")
    return found


def living_in(namespace: str) -> list[str]:
    """The processes in that process namespace."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "ns/pid").readlink()) == namespace:
                found.append(process.name)
        except OSError:  # gone meanwhile, or not ours to see (the machine's own first process)
            continue
    return found


@pytest.fixture
def make_lab(practice_programs: None, tmp_path: Path) -> Iterator[Callable[..., practice.Lab]]:  # noqa: ARG001
    """A maker of labs that are the test's own, taken down after it."""
    made: list[str] = []

    def make(count: int, suffix: str = "a") -> practice.Lab:
        name = f"own{suffix}-{os.getpid()}"
        made.append(name)
        return practice.up(count, tmp_path / f"{name}.yml", name)

    yield make
    for name in made:
        practice.down(name)
        assert traces(name) == []


@lab_test
def test_hosts_are_machines_of_their_own(practice_lab: practice.Lab) -> None:
    """A host has its own name, processes, home, /tmp and address, and is reached with host-key checking on."""
    first, second = practice_lab.hosts[:2]
    done = ssh(practice_lab, first.name, "hostname; cat /proc/1/comm; ls -A /root /tmp; touch /root/mine /tmp/mine")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{first.name}\nsh\n/root:\n\n/tmp:\n"
    assert ssh(practice_lab, second.name, "ls /root /tmp").stdout == "/root:\n\n/tmp:\n"
    assert not Path("/root/mine").exists()
    ssh(practice_lab, first.name, "rm /root/mine /tmp/mine")


@lab_test
def test_hosts_know_one_another_by_name(practice_lab: practice.Lab) -> None:
    """On each host the names of all hosts and of the controller lead to their addresses."""
    last = practice_lab.hosts[-1]
    for host in practice_lab.hosts:
        done = ssh(practice_lab, host.name, f"getent hosts {last.name} controller && ssh-keyscan -T 5 {last.name} 2>&1")
        assert f"{last.address} " in done.stdout
        assert f"{practice_lab.controller} " in done.stdout
        assert "ssh-ed25519" in done.stdout


@lab_test
def test_another_host_key_is_refused(practice_lab: practice.Lab, tmp_path: Path) -> None:
    """A host that answers with another key than the lab's list says is not trusted."""
    first, second = practice_lab.hosts[:2]
    lines = (practice_lab.directory / "known_hosts").read_text().splitlines()
    other = next(line for line in lines if line.startswith(f"{second.address},")).partition(" ")[2]
    (tmp_path / "known_hosts").write_text(f"{first.address} {other}\n")
    done = ssh(practice_lab, first.name, "true", "-F", "none", user="root")
    assert done.returncode == 0, done.stderr
    command = ["ssh", "-i", f"{practice_lab.directory}/id_ed25519", "-o", f"UserKnownHostsFile={tmp_path}/known_hosts"]
    command += ["-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", f"root@{first.address}", "true"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr


@lab_test
def test_ordinary_accounts(practice_lab: practice.Lab) -> None:
    """Every host has an ordinary account, and one more that may become root where sudo is installed."""
    name = practice_lab.hosts[0].name
    assert ssh(practice_lab, name, "id -un; pwd; touch x; rm x", user="lab-user").stdout == "lab-user\n/home/lab-user\n"
    if shutil.which("sudo"):
        assert ssh(practice_lab, name, "sudo -n id -un", user="lab-admin").stdout == "root\n"
        assert ssh(practice_lab, name, "sudo -n id -un", user="lab-user").returncode == 1


@lab_test
def test_ansible_works_with_the_inventory(practice_lab: practice.Lab) -> None:
    """The inventory that a lab writes is all that Ansible needs to reach its hosts."""
    ansible = Path(sys.executable).parent / "ansible"
    command = [str(ansible), "-i", str(practice_lab.inventory), "all", "-m", "ansible.builtin.ping"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('"pong"') == len(practice_lab.hosts)


@lab_test
def test_secrets_are_private(practice_lab: practice.Lab) -> None:
    """The lab's state is root's alone, its client key readable for nobody else, and hosts do not see it."""
    assert practice_lab.directory.stat().st_mode & 0o777 == 0o700
    assert (practice_lab.directory / "id_ed25519").stat().st_mode & 0o777 == 0o600
    assert ssh(practice_lab, practice_lab.hosts[0].name, f"ls {practice_lab.directory}").returncode != 0


@lab_test
def test_killed_host_takes_all_with_it(make_lab: Callable[..., practice.Lab]) -> None:
    """Killing a host ends every process on it at once and leaves its neighbour alone."""
    lab = make_lab(2)
    victim, witness = lab.hosts
    init = hosts.init_of(lab.directory, victim.name)
    assert init is not None
    namespace = str(Path(f"/proc/{init.pid}/ns/pid").readlink())
    assert ssh(lab, victim.name, "nohup setsid sleep 1000 >/dev/null 2>&1 </dev/null &").returncode == 0
    assert len(living_in(namespace)) >= 3
    practice.kill(lab, victim.name)
    assert living_in(namespace) == []
    assert [(h.up, h.sshd) for h in practice.status(lab).hosts] == [(False, False), (True, True)]
    assert ssh(lab, witness.name, "true").returncode == 0
    practice.kill(lab, victim.name)  # a second time is no error


@lab_test
def test_cut_cable_and_join(make_lab: Callable[..., practice.Lab]) -> None:
    """A cut host lives on unreachable, and is reached again when its cable is back."""
    lab = make_lab(1)
    name = lab.hosts[0].name
    practice.cut(lab, name)
    assert practice.status(lab).hosts[0] == practice.HostState(name, lab.hosts[0].address, True, False)
    inside = subprocess.run([*practice.enter(lab, name), "hostname"], check=True, capture_output=True, text=True)
    assert inside.stdout.strip() == name
    practice.join(lab, name)
    assert ssh(lab, name, "true").returncode == 0


@lab_test
def test_labs_stand_side_by_side(make_lab: Callable[..., practice.Lab]) -> None:
    """Two labs have subnets of their own, and taking one down leaves the other up."""
    one, two = make_lab(1, "a"), make_lab(1, "b")
    assert one.subnet != two.subnet
    assert {one.name, two.name} <= set(practice.labs())
    assert practice.down(one.name)
    assert ssh(two, two.hosts[0].name, "true").returncode == 0
    assert practice.find(two.name) == two


@lab_test
def test_down_leaves_nothing(make_lab: Callable[..., practice.Lab]) -> None:
    """After `down` there is no process, no device, no file of the lab; a second `down` says that there was none."""
    lab = make_lab(3)
    assert traces(lab.name) != []
    assert practice.down(lab.name)
    assert traces(lab.name) == []
    assert not lab.inventory.exists()
    assert not practice.down(lab.name)


@lab_test
def test_down_clears_a_broken_lab(make_lab: Callable[..., practice.Lab]) -> None:
    """A lab whose bridge, plan and some processes are gone is cleared all the same."""
    lab = make_lab(3)
    init = hosts.init_of(lab.directory, lab.hosts[0].name)
    assert init is not None
    parent = hosts.parent_of(init)
    assert parent is not None
    hosts.end([parent])
    subprocess.run(["ip", "link", "delete", lab.bridge], check=True)
    (lab.directory / "lab.json").write_text("{")
    assert practice.down(lab.name)
    assert traces(lab.name) == []


@lab_test
@pytest.mark.usefixtures("practice_programs")
def test_failed_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the network cannot be laid, `up` says why and clears what it had made by then."""
    real = shutil.which("ip")
    broken = tmp_path / "bin" / "ip"
    broken.parent.mkdir()
    broken.write_text(f'#!/bin/sh\nif [ "$1" = -batch ]; then echo out of wire >&2; exit 2; fi\nexec {real} "$@"\n')
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
    name = f"broken-{os.getpid()}"
    with pytest.raises(LabError, match="out of wire"):
        practice.up(2, tmp_path / "inventory.yml", name)
    assert traces(name) == []
    assert not (tmp_path / "inventory.yml").exists()


def test_a_lab_that_is_not_there(tmp_path: Path) -> None:
    """Who asks for a lab that is not there is told which are, or how to make one."""
    with pytest.raises(UsageError) as none:
        practice.find("practice", tmp_path)
    assert "lab up" in none.value.help
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "lab.json").write_text("{}")
    with pytest.raises(UsageError, match="no practice lab practice") as other:
        practice.find("practice", tmp_path)
    assert other.value.help == "there is: mine; name it with --name"


@lab_test
def test_refuses_what_is_there(make_lab: Callable[..., practice.Lab], tmp_path: Path) -> None:
    """A lab that stands and an inventory of somebody else's are left as they are."""
    lab = make_lab(1)
    with pytest.raises(UsageError, match="exists already"):
        practice.up(1, lab.inventory, lab.name)
    assert ssh(lab, lab.hosts[0].name, "true").returncode == 0
    mine = tmp_path / "mine.yml"
    mine.write_text("all: {hosts: {precious: {}}}\n")
    with pytest.raises(UsageError, match=r"mine\.yml exists"):
        practice.up(1, mine, lab.name)
    assert "precious" in mine.read_text()


@pytest.mark.parametrize(
    ("count", "name"), [(0, "x"), (251, "x"), (-1, "x"), (1, "X"), (1, "../x"), (1, ""), (1, "a" * 41)]
)
def test_refuses_impossible_labs(count: int, name: str, tmp_path: Path) -> None:
    """Counts that no subnet holds and names that are no names are refused before anything is touched."""
    with pytest.raises(UsageError):
        practice.up(count, tmp_path / "inventory.yml", name, tmp_path / "state")
    assert list(tmp_path.iterdir()) == []


def test_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that lacks the programs is told all of them and the one command that installs them."""
    if os.geteuid() != 0:
        pytest.skip("needs root: without it that is what is said first")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError) as caught:
        practice.check_machine()
    assert "sshd" in caught.value.message
    assert caught.value.help == "apt-get install iproute2 mount openssh-client openssh-server util-linux"


def test_never_kills_a_stranger(tmp_path: Path) -> None:
    """A process that has taken the number of a host's first process later is not taken for it."""
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        stat = Path(f"/proc/{stranger.pid}/stat").read_text()
        head, _, tail = stat.rpartition(")")
        fields = tail.split()
        started = int(fields[19])
        fields[19] = str(started - 1)
        (tmp_path / "hosts" / "h").mkdir(parents=True)
        (tmp_path / "hosts" / "h" / "init").write_text(f"{head}) {' '.join(fields)}\n")
        assert hosts.init_of(tmp_path, "h") is None
        hosts.end([hosts.Process(stranger.pid, started - 1)])
        assert stranger.poll() is None
        hosts.end([hosts.Process(stranger.pid, started)])
        assert stranger.wait() == -9
    finally:
        stranger.kill()
        stranger.wait()


@lab_test
def test_death_of_a_host_leaves_the_controller_its_place(make_lab: Callable[..., practice.Lab]) -> None:
    """The controller keeps its hardware address when hosts die; else the others lose it until their tables age."""
    lab = make_lab(3)
    address = Path(f"/sys/class/net/{lab.bridge}/address")
    before = address.read_text()
    for host in lab.hosts:
        practice.kill(lab, host.name)
        assert address.read_text() == before

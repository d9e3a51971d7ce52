"""The rows of the table: ways to run six trivial commands on the same hosts, each from cold connections."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import spec
from benchmarks.measure import Cost, Failure, cpu_of, descendants, measure
from testbed.lab import hosts
from testbed.lab.practice import Lab

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".venv-bench"
"""The virtual environment of the others."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a row runs: a command and its environment; its working directory is the row's own."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """A row: how it is made ready in a fresh folder.

    ``archives``: it must bring a tar file from every host; ``fast``: it can be measured in several rounds.
    """

    name: str
    what: str
    prepare: Callable[[Lab, Path], Ready]
    archives: bool = False
    fast: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """What a row cost here (the controller's side), and what all the hosts spent on it, in CPU seconds."""

    cost: Cost
    hosts_cpu: float


def run(row: Row, lab: Lab, folder: Path, look: bool) -> Measured:
    """Measure the row once, at its memory with ``look``; raises `Failure` where it did not do what it is for."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ready = row.prepare(lab, folder)
    before = _hosts_cpu(lab)
    cost = measure(ready.command, ready.environment, folder, folder / "log", look=look)
    if row.archives:
        empty = [h.name for h in lab.hosts if not (folder / f"{h.name}.tar.gz").stat().st_size]
        if empty:
            raise Failure(f"{row.name} brought nothing from {', '.join(empty)}")
    return Measured(cost, _hosts_cpu(lab) - before)


def _hosts_cpu(lab: Lab) -> float:
    """CPU seconds of all processes that ever ran on the hosts and have ended, or live now."""
    inits = (hosts.init_of(lab.directory, host.name) for host in lab.hosts)
    return sum(cpu_of(pid) for init in inits if init is not None for pid in descendants(init.pid))


def _ssh(lab: Lab, folder: Path) -> Ready:
    """One plain ssh per host, all in parallel; each runs the commands and returns their logs as a tar."""
    steps = "; ".join(f"sh -c {shlex.quote(spec.command(t))} >{t}.out 2>{t}.err" for t in spec.TARGETS)
    there = shlex.quote(f"d=$(mktemp -d) && cd $d && {{ {steps}; tar cz .; cd /; rm -rf $d; }}")
    options = f"-F none -i {lab.directory}/id_ed25519 {_SSH_OPTIONS.format(lab=lab.directory)}"
    lines = [f"ssh {options} root@{h.address} {there} >{h.name}.tar.gz &" for h in lab.hosts]
    return Ready(["sh", str(_script(folder, [*lines, "wait"]))])


def _testbed(lab: Lab, folder: Path) -> Ready:
    """A whole run: etcd set up, agents started, six targets, results collected, report written."""
    path = spec.six_targets(folder / "deployment.yml", len(lab.hosts))
    command = [sys.executable, "-m", "testbed", "run", str(path), "-i", str(lab.inventory), "--clean-first"]
    return Ready(command, {"TESTBED_STATE_HOME": str(folder / "state"), "PYTHONPATH": str(ROOT)})


def _free(lab: Lab, folder: Path) -> Ready:
    """One ansible-playbook, strategy free, pipelining, a fork for every host."""
    return _playbook(lab, folder, "free", {})


def _mitogen(lab: Lab, folder: Path) -> Ready:
    """The same over mitogen's connections and interpreters that stay."""
    found = next((PEERS / "lib").glob("python3*/site-packages/ansible_mitogen/plugins/strategy"))
    return _playbook(lab, folder, "mitogen_free", {"ANSIBLE_STRATEGY_PLUGINS": str(found)})


def _per_node(lab: Lab, folder: Path) -> Ready:
    """One ansible-playbook process per node, all in parallel."""
    ready = _playbook(lab, folder, "linear", {})
    command = shlex.join([*ready.command, "--forks", "1", "--limit"])
    lines = ["code=0", "pids="]
    lines += [f'{command} {h.name} & pids="$pids $!"' for h in lab.hosts]
    lines += ["for p in $pids; do wait $p || code=1; done", "exit $code"]
    return Ready(["sh", str(_script(folder, lines))], ready.environment)


def _pyinfra(lab: Lab, folder: Path) -> Ready:
    """Run pyinfra over its own SSH, all hosts at once."""
    data = {
        "ssh_user": "root",
        "ssh_key": f"{lab.directory}/id_ed25519",
        "ssh_known_hosts_file": f"{lab.directory}/known_hosts",
        "ssh_strict_host_key_checking": "yes",
    }
    (folder / "inventory.py").write_text(f"hosts = ({[h.address for h in lab.hosts]!r}, {data!r})\n")
    operations = ["from pyinfra.operations import server", ""]
    operations += [f"server.shell(name={t!r}, commands=[{spec.command(t)!r}])" for t in spec.TARGETS]
    (folder / "deploy.py").write_text("\n".join(operations) + "\n")
    count = str(len(lab.hosts))
    return Ready([str(PEERS / "bin/pyinfra"), "-y", "--parallel", count, "inventory.py", "deploy.py"])


ROWS = (
    Row("ssh", "one plain ssh per host, in parallel", _ssh, archives=True, fast=True),
    Row("testbed", "testbed run", _testbed, fast=True),
    Row("mitogen", "ansible-playbook with mitogen_free", _mitogen),
    Row("pyinfra", "pyinfra", _pyinfra),
    Row("ansible-free", "ansible-playbook, strategy free", _free),
    Row("ansible-per-node", "an ansible-playbook per node", _per_node),
)

_SSH_OPTIONS = (
    "-o UserKnownHostsFile={lab}/known_hosts -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes"
    " -o IdentitiesOnly=yes -o BatchMode=yes -o ControlPath=none"
)


def _playbook(lab: Lab, folder: Path, strategy: str, more: Mapping[str, str]) -> Ready:
    tasks = [{"name": t, "ansible.builtin.command": spec.command(t)} for t in spec.TARGETS]
    play = [{"name": "Six", "hosts": "all", "gather_facts": False, "strategy": strategy, "tasks": tasks}]
    (folder / "six.yml").write_text(json.dumps(play))
    (folder / "ansible.cfg").write_text("")  # nothing of the operator's own
    # Kept connections lie in this row's own folder: cold at its start, ended with it. A short path: it is a socket's.
    environment = {
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"), "ANSIBLE_PIPELINING": "1", "ANSIBLE_FORKS": str(len(lab.hosts)),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "cp"), "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_TIMEOUT": "60", **more,
    }  # fmt: skip
    command = [str(PEERS / "bin/ansible-playbook"), "-i", str(lab.inventory), str(folder / "six.yml")]
    return Ready(command, environment)


def _script(folder: Path, lines: Sequence[str]) -> Path:
    path = folder / "row.sh"
    path.write_text("\n".join(lines) + "\n")
    return path

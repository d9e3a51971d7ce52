"""A plan becomes files in the run directory: the frozen spec, playbooks, staged archives, each node's start."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from testbed.agent.plan import Access
from testbed.compile.plan import NodePlan, RunPlan, to_data
from testbed.compile.playbooks import playbooks
from testbed.errors import LabError
from testbed.resources import playbooks as shipped_playbooks
from testbed.run.directory import RunDirectory
from testbed.run.remote import COMMON
from testbed.spec.model import Deployment


@dataclass(frozen=True, slots=True)
class Timing:
    """The times by which a run's nodes live, in seconds; the spec sets ``liveness`` and ``outage``.

    ``packing``: beyond all of a node's own limits, for packing its results, before collecting it kills its agent.
    ``slack``: beyond that, before the controller takes the node, or its collecting, for stuck.
    """

    finalise: float = 120.0
    grace: float = 10.0
    liveness: float = 15.0
    outage: float = 120.0
    packing: float = 30.0
    slack: float = 30.0


def timing_of(deployment: Deployment) -> Timing:
    """The times of a run; how long a node may be silent depends on how many there are, unless the spec says it.

    Every agent refreshes its lease three times in its life; in large runs leases live longer, so that all agents
    together do so no more than 50 times a second.
    """
    liveness = deployment.liveness or max(Timing().liveness, 3 * len(deployment.nodes) / 50)
    return Timing(liveness=liveness, outage=deployment.outage)


def freeze(directory: RunDirectory, plan: RunPlan) -> None:
    """Write what a reader of the run wants to see: spec, plan, playbooks."""
    directory.spec.write_text(plan.deployment.text, encoding="utf-8")
    directory.plan.write_text(json.dumps(to_data(plan), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for path, text in playbooks(plan).items():
        target = directory.playbooks / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    shutil.copytree(
        shipped_playbooks(),
        directory.playbooks,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("__pycache__", "LICENSE", "testbed_inventory.py"),
    )
    link_spec_folder(directory, plan)


def link_spec_folder(directory: RunDirectory, plan: RunPlan) -> None:
    """Make what lies beside the spec lie beside the playbooks too, so that Ansible finds it as it always does.

    Roles, library, collections, group_vars, host_vars, templates and plugins are all looked for there. Folders that
    the run has of its own (action plugins, a node's task files) get the entries of the spec's folder linked in, and so
    does that of host_vars, without those of the plan's hosts: see `_link_variables`.
    """
    spec = plan.deployment.path.resolve()
    for entry in sorted(spec.parent.iterdir()) if spec.parent.is_dir() else ():
        if entry.name.startswith(".") or entry == spec:
            continue
        here = directory.playbooks / entry.name
        machines = plan.hosts if entry.name == "host_vars" and entry.is_dir() else ()
        if machines:
            here.mkdir(exist_ok=True)  # made before, where a run that was killed is cleaned
        if not here.exists():
            here.symlink_to(entry)
        elif here.is_dir() and entry.is_dir():
            for inner in sorted(entry.iterdir()):
                if not (here / inner.name).exists() and _owner(inner) not in machines:
                    (here / inner.name).symlink_to(inner)


def unlink_spec_folder(directory: RunDirectory) -> None:
    """Remove those links: who copies a run and follows them would copy all beside its spec, and runs that lie there."""
    for pattern in ("*", "*/*"):
        for path in list(directory.playbooks.glob(pattern)):
            if path.is_symlink():
                path.unlink()


def write_inventory(directory: RunDirectory, plan: RunPlan, inventory: dict[str, Any]) -> Path:
    """Write the run's own inventory, readable for its owner alone: it may hold decrypted variables.

    ``inventory`` is `testbed.inventory.for_nodes`'s; every node gets what the shipped actions need to know.
    """
    for node in plan.nodes:
        variables = inventory["all"]["hosts"].setdefault(node.node.name, {}) or {}
        inventory["all"]["hosts"][node.node.name] = variables
        variables["testbed"] = {
            "run": plan.run, "node": node.node.name, "index": node.node.index,
            "nodes": "{{ testbed_nodes }}", "workspace": node.workspace,  # there once, not in every node's
        }  # fmt: skip
        variables["testbed_workspace"] = node.workspace
        variables["testbed_become"] = node.node.become
        variables["testbed_results"] = str(directory.nodes / node.node.name / "results.tar.gz")
    common = inventory["all"].setdefault("vars", {})
    common["testbed_nodes"] = [p.node.name for p in plan.nodes]
    common["params"] = dict(plan.deployment.parameters)
    common["testbed_private"] = str(directory.private)
    common["testbed_spec_dir"] = str(plan.deployment.path.resolve().parent)
    path = directory.private / "inventory.json"
    write_private(path, json.dumps(inventory))
    files = [Path(source) for source in plan.inventories if "," not in source]  # lists of hosts have no place
    _link_variables(files, directory.private, plan.hosts)
    return path


def _link_variables(sources: Sequence[Path], private: Path, hosts: Collection[str]) -> None:
    """Make the ``group_vars`` and ``host_vars`` beside the operator's inventories lie beside the run's own too.

    What they say of the machines is in the inventory already; of the nodes and the groups that the deployment makes,
    Ansible learns it only here. The variables of ``hosts``, the machines, stay away: a node that is called as one
    machine and stands on another would be taken to the wrong one. Several inventories may each have a file of one
    name: a folder takes them all.
    """
    for number, source in enumerate(sources):
        beside = source if source.is_dir() else source.parent
        for kind in ("group_vars", "host_vars"):
            for entry in sorted((beside / kind).iterdir()) if (beside / kind).is_dir() else ():
                name = _owner(entry)
                if kind == "host_vars" and name in hosts:
                    continue
                folder = private / kind / name
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                (folder / f"{number:03d}-{entry.name}").symlink_to(entry.absolute())


def _owner(variables: Path) -> str:
    """Whose variables a file or a folder of host_vars or group_vars holds."""
    return variables.stem if variables.suffix in (".yml", ".yaml", ".json") else variables.name


def write_starts(
    directory: RunDirectory, plan: RunPlan, access: Mapping[str, Access], timing: Timing, delivery: int
) -> None:
    """Write what each node's agent is sent at its start, secrets included: one file of mode 0600 each.

    Results of up to ``delivery`` bytes come home through etcd.
    """
    folder = directory.private / "starts"
    folder.mkdir(mode=0o700, exist_ok=True)
    staged: dict[tuple[str, ...], str] = {}
    common = {
        "run": plan.run,
        "peers": [asdict(peer) for peer in plan.peers],
        "parameters": dict(plan.deployment.parameters),
        "timeout": plan.deployment.timeout,
        "finalise": plan.deployment.finalise,
        "finalise_timeout": timing.finalise,
        "grace": timing.grace,
        "liveness": timing.liveness,
        "outage": timing.outage,
        "packing": timing.packing,
        "delivery": delivery,
    }
    write_private(folder / COMMON, json.dumps(common))
    for node in plan.nodes:
        if node.files not in staged:
            staged[node.files] = _stage(directory, plan, node)
        own = {
            "node": node.node.name,
            "index": node.node.index,
            "steps": [asdict(step) for step in node.steps],
            "access": asdict(access[node.node.name]),
        }
        start = {"workspace": node.workspace, "files": staged[node.files], "plan": own}
        write_private(folder / f"{node.node.name}.json", json.dumps(start))


def _stage(directory: RunDirectory, plan: RunPlan, node: NodePlan) -> str:
    """Pack the node's files as they lie beside the spec; the archive's digest, empty where there is nothing."""
    if not node.files:
        return ""
    folder = plan.deployment.path.resolve().parent
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in node.files:
            try:
                archive.add(folder / name, arcname=os.path.normpath(name), filter=_anonymous)
            except OSError as error:
                raise LabError(f"cannot read {folder / name} to stage it: {error.strerror}") from error
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    target = directory.private / "files" / f"{digest}.tar.gz"
    target.parent.mkdir(mode=0o700, exist_ok=True)
    target.write_bytes(buffer.getvalue())
    return digest


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Only files, folders and links travel, owned by whoever unpacks them."""
    if not (member.isfile() or member.isdir() or member.issym()):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    with open(path, "w", encoding="utf-8", opener=lambda p, f: os.open(p, f, 0o600)) as out:
        out.write(text)

"""What is laid beside a run's playbooks for Ansible to find."""

from __future__ import annotations

from pathlib import Path

from testbed.run import directory as directories
from testbed.run.freeze import freeze, link_spec_folder, unlink_spec_folder
from testbed.run.pipeline import Options, plan_of

SPEC = "deployment: linked\nconfigurations: {c: {test: 'true'}}\nnodes: {n: {configurations: [c]}}\n"


def test_links_are_made_again_for_a_clean(tmp_path: Path) -> None:
    """What lies beside the spec is linked, but for variables of machines, and can be again where some of it is left."""
    (tmp_path / "spec/host_vars").mkdir(parents=True)
    (tmp_path / "spec/d.yml").write_text(SPEC)
    (tmp_path / "spec/page.txt").write_text("a page\n")
    for owner in ("n", "m1"):
        (tmp_path / f"spec/host_vars/{owner}.yml").write_text("x: 1\n")
    inventory = tmp_path / "inventory.yml"
    inventory.write_text("all: {hosts: {m1: {ansible_connection: local}}}\n")
    plan, _ = plan_of(Options(tmp_path / "spec/d.yml", inventories=[str(inventory)], run_dir=tmp_path / "run"))
    directory = directories.RunDirectory(tmp_path / "run")
    directory.playbooks.mkdir(parents=True)

    def linked() -> set[str]:
        found = (path for pattern in ("*", "*/*") for path in directory.playbooks.glob(pattern))
        return {str(path.relative_to(directory.playbooks)) for path in found if path.is_symlink()}

    freeze(directory, plan)
    before = linked()
    assert before == {"page.txt", "host_vars/n.yml"}
    link_spec_folder(directory, plan)  # after a controller that was killed
    assert linked() == before
    unlink_spec_folder(directory)  # at a run's end
    assert linked() == set()
    link_spec_folder(directory, plan)
    assert linked() == before

"""Nodes find machines, or their lines in the spec say why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.diagnostics import Span
from testbed.errors import SpecError
from testbed.inventory import Inventory, Machine
from testbed.lab.match import match
from testbed.spec.model import Deployment, Node


def deployment(*nodes: tuple[str, str | None]) -> Deployment:
    """A deployment of (name, machine) nodes, each on a line of its own."""
    made = tuple(
        Node(name, index, name, ("c",), machine, False, Span("spec.yml", index + 1, 3, index + 1, 9))
        for index, (name, machine) in enumerate(nodes)
    )
    return Deployment("d", "", 60.0, "all", False, {}, {}, made, Path("spec.yml"), "", "")


def inventory(*names: str, connection: str = "ssh") -> Inventory:
    """An inventory of these machines."""
    return Inventory(tuple(Machine(name, f"10.0.0.{name}", connection) for name in names), {}, ("lab.yml",))


def faults(deployment: Deployment, inventory: Inventory | None) -> list[tuple[int, str, str]]:
    """Line, message and help of every diagnostic."""
    with pytest.raises(SpecError) as caught:
        match(deployment, inventory)
    return [(d.span.line if d.span else 0, d.message, d.help) for d in caught.value.diagnostics]


def test_takes_machines_in_order() -> None:
    """Nodes take the inventory's machines in order, one each; machines left over are nobody's."""
    found = match(deployment(("b", None), ("a", None)), inventory("z", "m", "k"))
    assert [(node, machine.name) for node, machine in found.items()] == [("b", "z"), ("a", "m")]


def test_pins_come_first() -> None:
    """A pinned machine is kept for its node even where an earlier node would be next in line for it."""
    found = match(deployment(("a", None), ("b", "m1"), ("c", None)), inventory("m1", "m2", "m3"))
    assert {node: machine.name for node, machine in found.items()} == {"a": "m2", "b": "m1", "c": "m3"}
    assert list(found) == ["a", "b", "c"]


def test_local_machines_count_one_each() -> None:
    """Inventory entries that are all this machine carry one node each."""
    found = match(deployment(("a", None), ("b", None)), inventory("w1", "w2", connection="local"))
    assert [machine.name for machine in found.values()] == ["w1", "w2"]


def test_no_inventory_means_workspaces_here() -> None:
    """Without an inventory every node is a local workspace under its own name."""
    found = match(deployment(("a", None), ("b", None)), None)
    assert [(m.name, m.connection, m.address) for m in found.values()] == [
        ("a", "local", "127.0.0.1"),
        ("b", "local", "127.0.0.1"),
    ]


def test_unknown_machine_suggests_the_near_one() -> None:
    """A pin to a machine that is not there is told at the node's line with the name that was meant."""
    (line, message, help_line) = faults(deployment(("a", None), ("b", "rack-21")), inventory("rack-12", "rack-2"))[0]
    assert line == 2
    assert "rack-21" in message
    assert "lab.yml" in message
    assert help_line.startswith("did you mean rack-")


def test_too_few_machines_says_how_many() -> None:
    """The first node without a machine bears the diagnostic, with what is needed and what is there."""
    with pytest.raises(SpecError) as caught:
        match(deployment(("a", None), ("b", None), ("c", None)), inventory("m"))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.span is not None
    assert diagnostic.span.line == 2
    assert "b and 1 more" in diagnostic.message
    assert diagnostic.notes == ("the deployment needs 3, the inventory lab.yml has 1",)


def test_pin_without_inventory() -> None:
    """A pin makes no sense without an inventory; every such node is told."""
    found = faults(deployment(("a", "m"), ("b", None), ("c", "n")), None)
    assert [line for line, _, _ in found] == [1, 3]
    assert all("-i INVENTORY" in help_line for _, _, help_line in found)


def test_tells_every_misfit_at_once() -> None:
    """Unknown pins, doubled pins and missing machines come in one go."""
    found = faults(deployment(("a", "m1"), ("b", "m1"), ("c", "nope"), ("d", None), ("e", None)), inventory("m1", "m2"))
    assert [line for line, _, _ in found] == [2, 3, 5]


def test_matches_a_thousand_nodes() -> None:
    """A thousand nodes, every third one pinned, find machines among two thousand without a clash."""
    nodes = [(f"n{i}", f"m{1999 - i}" if i % 3 == 0 else None) for i in range(1000)]
    found = match(deployment(*nodes), inventory(*(f"m{i}" for i in range(2000))))
    assert len({machine.name for machine in found.values()}) == 1000
    assert found["n999"].name == "m1000"


@pytest.mark.parametrize(
    ("pins", "clashes"),
    [(("m1", "m3"), False), ((None, None), False), (("m3", None), True), (("m1", "m2"), True), (("m3", "m4"), True)],
)
def test_a_node_named_as_a_group(pins: tuple[str | None, str | None], clashes: bool) -> None:
    """A node may have the name of a group of the inventory only where it alone stands on the group's machines."""
    groups = {"server": {"children": ["racks"]}, "racks": {"hosts": ["m1", "m2"]}, "all": {"children": ["server"]}}
    lab = Inventory(tuple(Machine(n, n) for n in ("m1", "m3", "m2", "m4")), groups, ("lab.yml",))
    wanted = deployment(("server", pins[0]), ("other", pins[1]))
    if clashes:
        ((line, message, help),) = faults(wanted, lab)
        assert (line, "server" in message, "rename" in help) == (1, True, True)
    else:
        assert match(wanted, lab)["server"].name == "m1"

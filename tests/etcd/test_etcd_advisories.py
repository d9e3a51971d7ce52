"""What is known to be wrong with which server."""

from __future__ import annotations

from typing import Any

import pytest
from etcd_witness import cases

from testbed.etcd.advisories import ADVISORIES, SAFE_FOR_SHARING, for_shared_use, known


@pytest.mark.parametrize("case", cases("advisories.yml"), ids=lambda c: ".".join(map(str, c["version"])))
def test_tells_what_a_version_falls_under(case: dict[str, Any]) -> None:
    """A version gets exactly its advisories, whichever series they were mended in."""
    assert [a.id for a in for_shared_use(tuple(case["version"]))] == case["shared"]


def test_what_is_called_safe_is() -> None:
    """The releases recommended for sharing fall under nothing, the ones before them under something."""
    for release in SAFE_FOR_SHARING:
        assert for_shared_use(release) == []
        assert for_shared_use((*release[:2], release[2] - 1)) != []


def test_faults_of_old_data_are_known_but_do_not_speak_against_sharing() -> None:
    """Lost writes after a crash are told of the versions that have them only."""
    assert "etcd-io/etcd#13766" in [a.id for a in known((3, 5, 2))]
    assert "etcd-io/etcd#13766" not in [a.id for a in known((3, 4, 23))]
    assert "etcd-io/etcd#13766" not in [a.id for a in for_shared_use((3, 5, 2))]


def test_every_list_of_releases_is_in_order() -> None:
    """`fixed` goes from the oldest series on, as looking up relies on."""
    for advisory in ADVISORIES:
        assert list(advisory.fixed) == sorted(advisory.fixed)

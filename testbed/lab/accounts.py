"""Accounts, keys and server settings of the practice hosts: files that a host sees in place of the machine's own."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testbed.errors import LabError

SSHD = """\
Port 22
AddressFamily inet
HostKey /run/host/host_key
PidFile /run/host/sshd.pid
AuthorizedKeysFile /run/host/authorized_keys
UsePAM no
UseDNS no
PermitRootLogin prohibit-password
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 500:30:1000
MaxSessions 500
PrintMotd no
LogLevel INFO
Subsystem sftp internal-sftp
"""

USERS = "lab-user", "lab-admin"
"""Ordinary accounts of every practice host; the second may use sudo without a password."""

_FIRST_UID = 64100


def write_keys(state: Path, hosts: Sequence[tuple[str, str]]) -> None:
    """Make the lab's client key and each (name, address)'s host key, and tell either side of the other.

    Leaves ``id_ed25519`` (0600) and ``known_hosts`` in ``state``, and the host's files in ``state/hosts/NAME``.
    """
    client = state / "id_ed25519"
    _generate(client, f"practice lab {state.name}")
    authorized = client.with_suffix(".pub").read_text()

    def furnish(host: tuple[str, str]) -> str:
        name, address = host
        folder = state / "hosts" / name
        folder.mkdir(parents=True, mode=0o755)
        _generate(folder / "host_key", name)
        (folder / "authorized_keys").write_text(authorized)
        (folder / "authorized_keys").chmod(0o644)
        (folder / "sshd_config").write_text(SSHD)
        kind, key, _ = (folder / "host_key.pub").read_text().split(None, 2)
        return f"{address},{name} {kind} {key}\n"

    with ThreadPoolExecutor(8) as workers:
        known = list(workers.map(furnish, hosts))
    (state / "known_hosts").write_text("".join(known))


def write_etc(state: Path, hosts: Sequence[tuple[str, str]], controller: str, etc: Path = Path("/etc")) -> None:
    """Write ``state/etc``: a hosts file in which all know one another, and accounts (copies of ``etc`` with more)."""
    folder = state / "etc"
    folder.mkdir(mode=0o755)
    lines = ["127.0.0.1 localhost", "::1 localhost", f"{controller} controller"]
    (folder / "hosts").write_text("\n".join([*lines, *(f"{address} {name}" for name, address in hosts)]) + "\n")
    (folder / "hosts").chmod(0o644)
    passwd = (etc / "passwd").read_text().rstrip("\n")
    users = [f"{name}:*:{_FIRST_UID + n}:65534::/home/{name}:/bin/sh" for n, name in enumerate(USERS)]
    (folder / "passwd").write_text("\n".join([passwd, *users]) + "\n")
    (folder / "passwd").chmod(0o644)
    _write_private(folder / "shadow", _unlocked((etc / "shadow").read_text()), 0o640)
    if (etc / "sudoers").exists():
        rule = f"root ALL=(ALL:ALL) ALL\n{USERS[1]} ALL=(ALL:ALL) NOPASSWD: ALL\n{USERS[0]} ALL=(ALL:ALL) ALL\n"
        _write_private(folder / "sudoers", rule, 0o440)


def _unlocked(shadow: str) -> str:
    """The shadow file with no password for root instead of a lock: sshd without PAM lets no locked account in."""
    lines = shadow.splitlines()
    for number, line in enumerate(lines):
        fields = line.split(":")
        if fields[0] == "root" and len(fields) > 1 and fields[1].startswith("!"):
            lines[number] = ":".join([fields[0], "*", *fields[2:]])
    extra = [f"{name}:*:19000:0:99999:7:::" for name in USERS]
    return "\n".join([*lines, *extra]) + "\n"


def _write_private(path: Path, text: str, mode: int) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
    path.chmod(mode)


def _generate(path: Path, comment: str) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise LabError(f"ssh-keygen made no key {path}: {(done.stderr or done.stdout).strip()}")

"""What a machine's failure means: from the words of ssh, Ansible or a machine to a cause and advice. Pure.

The patterns were written against real outputs, kept in ``tests/cases/failures``; a new one begins with a case there.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from testbed.inventory import Machine

UNREACHABLE, LOGIN, HOST_KEY, NO_PYTHON = "unreachable", "login", "host_key", "no_python"
DISK_FULL, READ_ONLY, PERMISSION, BECOME, ETCD, ANSIBLE = (
    "disk_full",
    "read_only",
    "permission",
    "become",
    "etcd",
    "ansible",
)
CAUSES = (UNREACHABLE, LOGIN, HOST_KEY, NO_PYTHON, DISK_FULL, READ_ONLY, PERMISSION, BECOME, ETCD, ANSIBLE)
"""Every cause that `explain` finds."""

LONGEST = 400
"""How much of a machine's own words a reason quotes, in characters."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a machine could not do its part.

    ``cause`` is one of `CAUSES`, ``reason`` one line, ``tried`` who was spoken to and how, ``advice`` what to do.
    """

    cause: str
    reason: str
    tried: str
    advice: str


@dataclass(frozen=True, slots=True)
class _Pattern:
    """``reason`` and ``advice`` may use the pattern's named groups and address, user, name, login and said."""

    cause: str
    pattern: str
    reason: str
    advice: str


_BY_HAND = "try it by hand: {login}"
_KEYS = (
    "check ansible_user and ansible_ssh_private_key_file (or the agent's keys: ssh-add -l), or ansible_password; "
    + _BY_HAND
)
_ESCALATION = "set ansible_become_password (vaulted) for it, or let {user} use the become method without a password"

# in this order: the first that matches tells the cause, so what is said precisely stands before what is said vaguely
_PATTERNS = (
    _Pattern(
        HOST_KEY,
        r"Offending \S+ key in (?P<file>\S+?):\d+",
        "the host key of {address} is not the one that {file} has for it",
        "if the machine was installed anew: ssh-keygen -f {file} -R {known}, then log in once by hand; "
        "if not, something else answers at its address",
    ),
    _Pattern(
        HOST_KEY,
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for \S+ has changed",
        "the host key of {address} has changed",
        "if the machine was installed anew: ssh-keygen -R {known}, then log in once by hand; "
        "if not, something else answers at its address",
    ),
    _Pattern(
        HOST_KEY,
        r"Host key verification failed|host key is known for|authenticity of host",
        "the host key of {address} is not known here",
        "log in once by hand and accept it ({login}), or add it to known_hosts",
    ),
    _Pattern(
        LOGIN,
        r"Permissions (?P<mode>\d+) for '(?P<key>[^']+)' are too open",
        "the private key {key} is readable for others (mode {mode}), so ssh does not use it",
        "chmod 600 {key}",
    ),
    _Pattern(
        LOGIN,
        r"no such identity: (?P<key>\S+?):",
        "the private key {key} does not exist",
        "correct ansible_ssh_private_key_file",
    ),
    _Pattern(LOGIN, r"install the sshpass program", "a password login needs sshpass here", "apt-get install sshpass"),
    _Pattern(
        LOGIN,
        r"Permission denied \((?P<methods>[a-z,-]+)\)|Too many authentication failures|Invalid/incorrect password",
        "{address} refuses the login of {user}",
        _KEYS,
    ),
    _Pattern(BECOME, r"Missing (?P<how>\w+) password", "{how} wants a password for {user}", _ESCALATION),
    _Pattern(BECOME, r"Incorrect (?P<how>\w+) password", "{how} refuses the password given", _ESCALATION),
    _Pattern(
        BECOME,
        r"waiting for privilege escalation prompt",
        "the become method wants something (a password?) and got no answer",
        _ESCALATION,
    ),
    _Pattern(
        BECOME,
        r"must have a tty",
        "sudo wants a terminal from {user} (requiretty)",
        "take `Defaults requiretty` out of /etc/sudoers on {name}, or say there: Defaults:NAME !requiretty",
    ),
    _Pattern(BECOME, r"sudo: a (?:terminal|password) is required", "sudo wants a password", _ESCALATION),
    _Pattern(
        BECOME,
        r"is not in the sudoers file|is not allowed to (?:execute|run sudo)",
        "{user} may not use sudo",
        "allow it in /etc/sudoers, or log in as another user",
    ),
    _Pattern(
        BECOME,
        r"becoming an unprivileged user|sudo: unknown user|su: user \S+ does not exist",
        "the login user cannot become that user",
        "check that become_user exists on the machine; to become an ordinary user from another it needs setfacl (acl)",
    ),
    _Pattern(
        BECOME,
        r"(?P<program>[\w./-]*(?:sudo|doas|pfexec|dzdo|pbrun|/su|\bsu)): (?:command )?not found",
        "the become program {program} is not installed",
        "install it, or set ansible_become_method",
    ),
    _Pattern(
        ETCD,
        r"(?:reach|connect to|answer from|log in to|the run's) (?:\w+ ){0,3}etcd\b",
        "{said}",
        "the machine must reach etcd at that address: check routes and firewalls, or set --etcd-advertise",
    ),
    _Pattern(
        UNREACHABLE,
        r"command-line:? line \d+: |: line \d+: Bad configuration option|t open user config file|unknown option -- ",
        "ssh does not take its options: {said}",
        "correct ansible_ssh_common_args, ansible_ssh_extra_args, or the ssh_config that is named",
    ),
    _Pattern(
        UNREACHABLE,
        r"Could not resolve hostname (?P<host>\S+?):|Name or service not known|[nN]ame resolution",
        "the name {address} does not resolve",
        "correct ansible_host, or add the name to DNS or /etc/hosts",
    ),
    _Pattern(
        UNREACHABLE,
        r"Connection refused",
        "nothing listens at {address} port {port}",
        "is its SSH server running (systemctl status ssh), is ansible_port right? " + _BY_HAND,
    ),
    _Pattern(
        UNREACHABLE,
        r"No route to host|Network is unreachable|Host is down",
        "there is no way to {address}",
        "is the machine on, its cable in, the address right? try: ping {address}",
    ),
    _Pattern(
        UNREACHABLE,
        r"(?:Connection|Operation|connect to host \S+ port \d+:.*?) timed out|timed out during banner exchange",
        "{address} does not answer",
        "is the machine on, does a firewall drop port {port}? try: ping {address}",
    ),
    _Pattern(
        UNREACHABLE,
        r"Connection reset by|kex_exchange_identification|Connection closed by|Broken pipe|Data could not be sent",
        "{address} ended the connection",
        "its SSH server may be overloaded (MaxStartups) or going down: look into its log; " + _BY_HAND,
    ),
    _Pattern(
        UNREACHABLE,
        r"^not done in the time that the run has for it$",
        "{name}, or the agent on it, hangs or is slow: {said}",
        "see what the agent does: {login} 'ps -eo pid,stat,args | grep [p]yz'",
    ),
    _Pattern(
        DISK_FULL,
        r"No space left on device|Disk quota exceeded|not enough space",
        "a disk of {name} is full: {said}",
        "make room on it; see: {login} df -h",
    ),
    _Pattern(
        READ_ONLY,
        r"Read-only file system",
        "a file system of {name} can only be read: {said}",
        "mount it for writing; see: {login} 'dmesg | tail; grep \" ro,\" /proc/mounts'",
    ),
    _Pattern(
        NO_PYTHON,
        r"interpreter '?(?P<python>[^' ]+)'? was not found|(?P<other>\S*python[\d.]*): (?:command )?not found",
        "there is no {python} on {name}",
        "install python3 (3.8 or newer) on it, or let ansible_python_interpreter name the right one",
    ),
    _Pattern(
        NO_PYTHON,
        r"is no Python 3\.8 or newer, or not there",
        "{said}",
        "let ansible_python_interpreter name the right one, or leave it out",
    ),
    _Pattern(
        NO_PYTHON,
        r"[nN]o [pP]ython|requires a minimum of Python|needs 3\.\d+ or newer|env: .?python",
        "there is no Python 3.8 or newer on {name}",
        "install python3 (3.8 or newer) on it, or let ansible_python_interpreter name the right one",
    ),
    _Pattern(
        PERMISSION,
        r"Failed to create temporary directory.*mkdir -p \"` echo (?P<folder>[^` ]+)",
        "{user} cannot make {folder}",
        "its home may be missing, full, read-only or somebody else's; see: {login} 'ls -ld ~; df ~; touch ~/x'",
    ),
    _Pattern(
        PERMISSION,
        r"Permission denied|Operation not permitted",
        "{user} lacks a right: {said}",
        "log in as another user, or set `become: true`",
    ),
    _Pattern(
        ANSIBLE,
        r"(?:did not start|no answer) \(exit code \d+\)",
        "{said}",
        "does its login shell end before it does what it is told? see: {login} 'echo fine'",
    ),
)
_COMPILED = tuple((entry, re.compile(entry.pattern, re.DOTALL)) for entry in _PATTERNS)
_PREFIXES = re.compile(r"^(?:Task failed: |Failed to connect to the host via ssh: |ssh: )+")


def explain(message: str, machine: Machine, otherwise: str = "see Ansible's own log in the run directory") -> Failure:
    """What ``message`` (of ssh, Ansible or the machine; any length, hostile or not) says about ``machine``.

    What no pattern knows is Ansible's own failure, told in its own words, with the advice ``otherwise``.
    """
    text = _PREFIXES.sub("", _plain(message))
    facts = _facts(machine)
    for entry, pattern in _COMPILED:
        found = pattern.search(text)
        if found:
            # quoted for a shell: the advice may be pasted into one, and the machine may be hostile
            groups = {key: shlex.quote(value) for key, value in found.groupdict().items() if value}
            if "other" in groups:
                groups["python"] = groups.pop("other")
            words = {**facts, **groups, "said": _quote(text, found.start())}
            advice = " ".join(entry.advice.format(**words).split())
            return Failure(entry.cause, entry.reason.format(**words), facts["tried"], advice)
    said = _quote(text, 0) or "Ansible gave no reason"
    return Failure(ANSIBLE, said, facts["tried"], otherwise)


def _facts(machine: Machine) -> dict[str, str]:
    """What the texts can say of the machine, and how it was spoken to."""
    user, port = machine.user or "the login user", machine.port or 22
    target = f"{machine.user}@{machine.address}" if machine.user else machine.address
    key = machine.variables.get("ansible_ssh_private_key_file")
    if machine.local:
        tried, login = "on this machine", ""
    elif machine.connection not in ("ssh", "smart", "paramiko", "paramiko_ssh", "libssh"):
        tried, login = f"{machine.connection} {machine.address}", f"reach {machine.address} by hand"
    else:
        tried = f"{target}:{port}" + (f" with key {key}" if key else "")
        login = "ssh" + (f" -i {key}" if key else "") + (f" -p {port}" if machine.port else "") + f" {target}"
    known = f"'[{machine.address}]:{port}'" if port != 22 else machine.address
    facts = {"name": machine.name, "address": machine.address, "user": user, "port": str(port), "known": known}
    return {**facts, "tried": tried, "login": login}


def _plain(message: str) -> str:
    """The message in one line, without ssh's frames and without what could move a terminal's cursor."""
    visible = "".join(c if c.isprintable() else " " for c in message[:20_000])
    return " ".join(re.sub(r"@{5,}", " ", visible).split())


def _quote(text: str, start: int) -> str:
    """The part of the text around ``start``, from the beginning where that still shows it."""
    if start < LONGEST * 3 // 4:
        return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    piece = text[start - LONGEST // 2 : start + LONGEST // 2]
    return f"…{piece}…" if start + LONGEST // 2 < len(text) else f"…{piece}"

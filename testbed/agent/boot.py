"""The first thing that runs on a machine: takes the agent off stdin, puts it into the workspace, becomes it.

It goes on as the agent in the same process: another Python would cost as much again as all of its own start.
This source travels as text and is run by whatever Python the machine has, old ones included, so that they can be told
apart; it uses nothing that Python 2.7 or 3.5 lacks. `boot` is called with the header and the rest of stdin.
"""

# The older forms are the point.
# ruff: noqa: UP031, UP036
# mypy: allow-untyped-defs, allow-untyped-calls

import errno
import gc
import hashlib
import json
import os
import sys

CAUSES = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EROFS: "read_only",
}
ADVICE = {
    "disk_full": "make room on that file system",
    "read_only": "mount that file system for writing, or let testbed_root name a folder on another one",
    "permission": "let the login user write there, or let testbed_root name a folder of its own",
    "no_python": "install Python 3.8 or newer, or let ansible_python_interpreter name one",
}


class Refusal(Exception):
    """The machine cannot take the agent; ``answer`` is what is told of it."""

    def __init__(self, answer):
        Exception.__init__(self, answer["reason"])
        self.answer = answer


def refuse(cause, reason):
    """Raise what ends the start."""
    raise Refusal({"ok": False, "cause": cause, "reason": reason, "advice": ADVICE.get(cause, "")})


def drain(stream, left):
    """Read what is still to come, so that nobody up the connection fails on a closed pipe."""
    while left > 0:
        piece = stream.read(min(left, 65536))
        if not piece:
            break
        left -= len(piece)


def read_agent(header, stream):
    """The agent, whole and undamaged."""
    pieces, left = [], header["agent"]
    while left:
        piece = stream.read(left)
        if not piece:
            refuse("bug", "the connection ended before the agent had come whole")
        pieces.append(piece)
        left -= len(piece)
    agent = b"".join(pieces)
    if hashlib.sha256(agent).hexdigest() != header["sha256"]:
        refuse("bug", "the agent came damaged: its checksum differs")
    return agent


def make_folders(path, made):
    """Make ``path`` private and what is above it; the folders made are added to ``made``, the topmost first."""
    for left in range(9999, -1, -1):  # the last node of another run may be removing what is above
        try:
            _make_missing(path, made)
            return
        except OSError as error:
            if error.errno != errno.ENOENT or not left:
                raise


def _make_missing(path, made):
    missing, above = [], path
    while not os.path.lexists(above):
        missing.append(above)
        above = os.path.dirname(above)
    for folder in reversed(missing):
        try:
            os.mkdir(folder, 0o700)
        except OSError as error:
            if error.errno != errno.EEXIST:  # another node on this machine may make the same parent
                raise
        else:
            made.append(folder)


def check_owner(workspace):
    """Refuse a folder that is another user's, or that holds what is not ours and would be deleted with it."""
    found = os.lstat(workspace)
    if found.st_mode & 0o170000 != 0o040000:
        refuse("permission", "%s is no folder" % workspace)
    if found.st_uid != os.geteuid():
        refuse("permission", "%s belongs to user %d, not to user %d" % (workspace, found.st_uid, os.geteuid()))
    foreign = [name for name in os.listdir(workspace) if name != ".testbed"]
    if foreign and not os.path.isdir(os.path.join(workspace, ".testbed")):
        refuse("permission", "%s exists and holds other things; it is no workspace of testbed" % workspace)


def place(workspace, header, agent, made):
    """Write the agent into the workspace, whole or not at all; its path."""
    make_folders(workspace, made)
    check_owner(workspace)
    own = os.path.join(workspace, ".testbed")
    make_folders(own, made)
    os.chmod(workspace, 0o700)
    path = os.path.join(own, "agent-" + header["sha256"][:12] + ".pyz")
    partial = "%s.%d" % (path, os.getpid())
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(agent)
        os.rename(partial, path)
    except OSError:
        if os.path.exists(partial):
            os.unlink(partial)
        raise
    return path


def undo(made):
    """Remove the folders that were made in vain."""
    for folder in reversed(made):
        try:
            os.rmdir(folder)
        except OSError:
            return  # somebody else uses it


def boot(header, stream):
    """Place the agent and become it; on failure print the one answer line and exit with 1."""
    left = header["agent"] + header["plan"] + header["files"]
    made = []  # type: list[str]
    workspace = os.path.abspath(os.path.join(os.path.expanduser("~"), os.path.expanduser(header["workspace"])))
    try:
        if sys.version_info < (3, 8):
            version = sys.version.split()[0]
            refuse("no_python", "%s is Python %s; testbed needs 3.8 or newer" % (sys.executable, version))
        agent = read_agent(header, stream)
        left -= len(agent)
        path = place(workspace, header, agent, made)
    except Refusal as refusal:
        answer = refusal.answer
    except OSError as error:
        cause = CAUSES.get(error.errno or 0, "permission")
        reason = "cannot write the agent into %s: %s" % (error.filename or workspace, error.strerror)
        answer = {"ok": False, "cause": cause, "reason": reason, "advice": ADVICE[cause]}
    else:
        told = json.dumps({"workspace": workspace, "made": made, "plan": header["plan"], "files": header["files"]})
        gc.disable()  # until the agent lives: nothing that is made before it does is ever given back
        sys.argv = [path, "start", told]
        sys.path.insert(0, path)
        from testbed.agent.__main__ import main

        code = main()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # the interpreter's own end costs as much as its start
    undo(made)
    drain(stream, left)
    os.write(1, ("\nTESTBED: " + json.dumps(answer) + "\n").encode())
    sys.exit(1)

"""
Makes a listening socket inside of another process's network namespace and hands it over.

    python -I -S inside_listening.py PID PORT SOCKET

SOCKET is the number of an open unix socket, over which the listening one is sent. A process of its own, because only
one without threads may join a user namespace, which whoever is not root has to do first. The standard library only.
"""

import array
import ctypes
import os
import socket
import sys

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
BACKLOG = 64


def join(user: int, network: int) -> None:
    """
    Join the network namespace; through its user namespace where this is not allowed directly.

    Raises: OSError.
    """
    try:
        _setns(network, CLONE_NEWNET)
    except PermissionError:
        _setns(user, CLONE_NEWUSER)
        _setns(network, CLONE_NEWNET)


def _setns(namespace: int, kind: int) -> None:
    # `os.setns` came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, kind):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main(pid: int, port: int, handed_over: int) -> None:
    """Listen there on every address: the namespace has no other neighbours, and its loopback may not be up yet."""
    spaces = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("user", "net")]
    join(*spaces)
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("0.0.0.0", port))
    listening.listen(BACKLOG)
    with socket.socket(fileno=handed_over) as channel:
        rights = array.array("i", [listening.fileno()])
        channel.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


if __name__ == "__main__":
    try:
        main(*map(int, sys.argv[1:]))
    except OSError as error:
        sys.exit(f"{error.strerror or error}")

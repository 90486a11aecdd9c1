"""Mail through the platform's proxy, the plugin's one way out: smtplib knows no proxies."""

import os
import smtplib
import socket
from urllib.parse import urlsplit

HEAD_BYTES = 4096


def lead_mail_through_the_proxy() -> None:
    """Have every SMTP connection of this process begin with CONNECT, where a proxy is set."""
    proxy = urlsplit(os.environ.get("HTTPS_PROXY", ""))
    if not (proxy.hostname and proxy.port):
        return
    way = (proxy.hostname, proxy.port)

    def connect(self: smtplib.SMTP, host: str, port: int, timeout: float) -> socket.socket:
        del self
        return tunnelled(way, host, port, timeout)

    smtplib.SMTP._get_socket = connect  # type: ignore[attr-defined]  # what smtplib offers for this


def tunnelled(proxy: tuple[str, int], host: str, port: int, timeout: float) -> socket.socket:
    """A connection to host and port by way of the proxy. Raises: OSError when it refuses."""
    connection = socket.create_connection(proxy, timeout)
    connection.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES:
        byte = connection.recv(1)  # not a byte more: what follows is the server's greeting
        if not byte:
            break
        head += byte
    if b" 200 " not in head.partition(b"\r\n")[0] + b" ":
        connection.close()
        raise OSError(f"the proxy refuses {host}:{port}: {head[:80].decode('latin-1')}")
    return connection

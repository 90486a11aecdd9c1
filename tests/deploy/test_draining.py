"""Who is still connected to a former instance."""

import socket

from penstock.deploy.draining import connections_to, drain
from penstock.pipeline.cancel import CancelToken

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 2
   2: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 3
   3: 0100007F:C351 0100007F:1F90 06 00000000:00000000 00:00000000 00000000     0        0 0
   4: 0100007F:C352 0100007F:1F91 01 00000000:00000000 00:00000000 00000000     0        0 4
"""


def test_established_connections_count_once():
    """Neither the listener, nor the other end, nor one that is closing, nor another port."""
    assert connections_to(8080, TABLE) == 1
    assert connections_to(8081, TABLE) == 1
    assert connections_to(8082, TABLE) == 0


def test_empty_table():
    """No line at all."""
    assert connections_to(8080, "") == 0


def test_drain_tells_who_is_left():
    """An open connection is waited for as long as allowed, a closed one no longer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            assert drain(port, 0.2, CancelToken()) == 1
        assert drain(port, 20, CancelToken()) == 0


def test_cancelled_drain_ends():
    """Who is in a hurry does not wait for the limit."""
    token = CancelToken()
    token.cancel("now")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            assert drain(port, 600, token) == 1

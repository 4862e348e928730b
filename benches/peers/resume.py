"""A client that resumes its TLS session with each connection: one small request each. Prints how many there were.

    python3 resume.py PORT SECONDS
"""

import socket
import ssl
import sys
import time

REQUEST = b"GET /small HTTP/1.1\r\nHost: bench.test\r\nConnection: close\r\n\r\n"


def main():
    port, seconds = int(sys.argv[1]), float(sys.argv[2])
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # The first one gives the session, which all others resume.
    session, _ = ask(context, port, None)
    deadline = time.monotonic() + seconds
    done = 0
    while time.monotonic() < deadline:
        _, reused = ask(context, port, session)
        if not reused:
            sys.exit("the session was not resumed")
        done += 1
    print(done)


def ask(context, port, session):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname="bench.test", session=session) as tls:
            tls.sendall(REQUEST)
            while tls.recv(65536):
                pass
            return tls.session, tls.session_reused


if __name__ == "__main__":
    main()

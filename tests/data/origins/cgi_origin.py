#!/usr/bin/python3
"""A CGI program (RFC 3875): it sees headers as HTTP_NAME in its environment. The log is at the end of this file's name."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import seen

env = os.environ
body = sys.stdin.buffer.read()
headers = [(name[5:].lower().replace("_", "-"), value) for name, value in env.items() if name.startswith("HTTP_")]
seen.note(__file__ + ".log", env["REQUEST_METHOD"], env["REQUEST_URI"], headers, body)
sys.stdout.write("Content-Type: text/plain\r\nContent-Length: 4\r\n\r\nseen")

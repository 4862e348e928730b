"""Runs a program under a seccomp filter that answers splice(2) with an error, as a container's may.
Usage: without_splice.py ERRNO PROGRAM ARGUMENT..."""

import ctypes
import os
import platform
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x00050000, 0x7FFF0000
SYS_SPLICE = {"x86_64": 275, "aarch64": 76}[platform.machine()]


def instruction(code, value, jump_true=0, jump_false=0):
    return struct.pack("HBBI", code, jump_true, jump_false, value)


code = ctypes.create_string_buffer(
    # The number of the call is the first word of struct seccomp_data.
    instruction(0x20, 0)
    + instruction(0x15, SYS_SPLICE, 0, 1)
    + instruction(0x06, SECCOMP_RET_ERRNO | int(sys.argv[1]))
    + instruction(0x06, SECCOMP_RET_ALLOW)
)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
for call in [(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)]:
    if libc.prctl(*call) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[2], sys.argv[2:])

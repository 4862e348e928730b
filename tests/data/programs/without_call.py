"""Runs a program under a seccomp filter that answers a system call with an error, as a container's may.
Usage: without_call.py CALL ERRNO PROGRAM ARGUMENT..."""

import ctypes
import os
import platform
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x00050000, 0x7FFF0000
CALLS = {
    "splice": {"x86_64": 275, "aarch64": 76},
    "io_uring_setup": {"x86_64": 425, "aarch64": 425},
    "io_uring_enter": {"x86_64": 426, "aarch64": 426},
}
_, call_name, error, *command = sys.argv


def instruction(code, value, jump_true=0, jump_false=0):
    return struct.pack("HBBI", code, jump_true, jump_false, value)


code = ctypes.create_string_buffer(
    # The number of the call is the first word of struct seccomp_data.
    instruction(0x20, 0)
    + instruction(0x15, CALLS[call_name][platform.machine()], 0, 1)
    + instruction(0x06, SECCOMP_RET_ERRNO | int(error))
    + instruction(0x06, SECCOMP_RET_ALLOW)
)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
for call in [(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)]:
    if libc.prctl(*call) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
os.execv(command[0], command)

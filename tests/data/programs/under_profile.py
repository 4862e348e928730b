"""Runs a program under a seccomp profile in the form that container engines read.
Usage: under_profile.py PROFILE PROGRAM ARGUMENT..."""

import json
import os
import sys

import seccomp

with open(sys.argv[1]) as file:
    profile = json.load(file)
call_filter = seccomp.SyscallFilter(seccomp.ERRNO(profile["defaultErrnoRet"]))
for rule in profile["syscalls"]:
    for name in rule["names"]:
        try:
            call_filter.add_rule(seccomp.ALLOW, name)
        except RuntimeError:
            pass  # This architecture has no such call: engines leave it out, too.
call_filter.load()
os.execv(sys.argv[2], sys.argv[2:])

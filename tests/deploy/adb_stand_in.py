"""Takes the place of `adb` in tests: records every call, answers in adb's formats, and runs commands in a sandbox.

What it answers is in the folder `$STAND_IN`: `devices` (the output of `adb devices -l`), `getprop`, and optionally
`fail` (a regular expression for calls that fail), `hang` (one for calls that do not end) and `old` (if it exists, exit
codes are not passed on). The device's file system is the folder `root` in it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(os.environ.get("STAND_IN", ""))  # not set when pytest collects doctests
ROOT = HOME / "root"


def shell(command):
    environment = {"PATH": f"{HOME / 'bin'}:{os.environ['PATH']}"}
    mapped = command.replace("/data/", f"{ROOT}/data/")
    done = subprocess.run(["sh", "-c", mapped], capture_output=True, text=True, env=environment)
    sys.stdout.write(done.stdout.replace(str(ROOT), "").replace("\n", "\r\n" if (HOME / "old").exists() else "\n"))
    sys.stderr.write(done.stderr)
    return 0 if (HOME / "old").exists() else done.returncode


def push(source, target):
    path = ROOT / target.lstrip("/")
    if not path.parent.is_dir():
        sys.exit(f"adb: error: failed to copy '{source}' to '{target}': remote couldn't create file: No such file")
    shutil.copyfile(source, path)
    size = path.stat().st_size
    print(f"{source}: 1 file pushed, 0 skipped. 38.2 MB/s ({size} bytes in 0.210s)")
    return 0


def main(arguments):
    with open(HOME / "calls", "a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    words = " ".join(arguments)
    for name in ("fail", "hang"):
        pattern = HOME / name
        if pattern.exists() and re.search(pattern.read_text(), words):
            if name == "hang":
                time.sleep(60)
            sys.exit("adb: error: closed")
    if arguments == ["devices", "-l"]:
        print("* daemon not running; starting now at tcp:5037\n* daemon started successfully", file=sys.stderr)
        print((HOME / "devices").read_text())
        return 0
    serial, name, *rest = arguments[1:]
    assert arguments[0] == "-s"
    if f"\n{serial} " not in (HOME / "devices").read_text():
        sys.exit(f"adb: device '{serial}' not found")
    return push(*rest) if name == "push" else shell(*rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

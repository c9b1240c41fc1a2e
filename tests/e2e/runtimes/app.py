"""A frontend in Python that asks its system for everything; what comes of it are lines of the log."""

import datetime
import os
import random
import socket
import subprocess
import sys
import threading
import time

from wbuild import Image, definition, each_platform, frontend, pull


def ask(word, rest):
    match word:
        case "time":
            return time.time(), datetime.datetime.now().isoformat()
        case "deadline":
            end, turns = time.monotonic() + 3600, 0
            while time.monotonic() < end:
                time.sleep(60)
                turns += 1
            return turns
        case "random":
            return os.urandom(8).hex(), random.SystemRandom().random()
        case "env":
            return dict(os.environ), sys.argv, os.getcwd()
        case "read":
            return open(rest).read()
        case "list":
            return os.listdir(rest)
        case "stdin":
            return sys.stdin.read()
        case "stderr":
            print(rest, file=sys.stderr)
        case "socket":
            return socket.socket()
        case "thread":
            threading.Thread(target=print).start()
        case "program":
            return subprocess.run([rest])
        case "exit":
            sys.exit(3)


@frontend
def Build():
    for line in definition("asks").lines():
        word, _, rest = line.text.partition(" ")
        if word == "bug":
            1 / 0
        if word == "late":
            import wave  # noqa: F401
        if word:
            try:
                print(f"{word}: {ask(word, rest)!r}")
            except Exception as error:
                print(f"{word}: {error!r}")

    def make(platform):
        base = pull("scratch", platform=platform)
        return Image(base.state.write("/x", "y"), base.config)

    each_platform(make)

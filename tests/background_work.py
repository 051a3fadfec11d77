"""Work for another process, which imports it by name."""

import os
import time

from protenix_eba.core.errors import UserError
from protenix_eba.training.replay.background import Background

__all__ = ["Background", "end_at_once", "note_and_sleep", "refuse", "wait_and_write", "write"]


def write(path, text):
    print("writing")
    path.write_text(text)


def refuse():
    raise UserError("no such thing", "look for another")


def end_at_once():
    os._exit(7)


def note_and_sleep(path):
    path.write_text(str(os.getpid()))
    time.sleep(600)


def wait_and_write(path, go):
    path.write_text(str(os.getpid()))
    while not go.exists():
        time.sleep(0.05)

"""python -m lib.export release <study> <data root, or ""> <run>: copy a run's files to the report, to be committed."""

import sys

from lib.export.bundle import release
from lib.settings import StudyError
from lib.study import load_study

if len(sys.argv) != 5 or sys.argv[1] != "release":
    sys.exit(f"usage: {__doc__}")
_, _, name, data, run = sys.argv
try:
    release(load_study(name, data, require_data=False), run)
except StudyError as error:
    sys.exit(f"error: {error}")

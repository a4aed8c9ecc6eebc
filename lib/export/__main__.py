"""python -m lib.export <files | release> <study> <data root, or ""> <run>: all files of a trained run; its release."""

import sys

from lib.export.release import release
from lib.export.run import export_run
from lib.runs import open_run
from lib.settings import StudyError
from lib.study import load_study

WORK = {"files": export_run, "release": release}

if len(sys.argv) != 5 or sys.argv[1] not in WORK:
    sys.exit(f"usage: {__doc__}")
try:
    work, study, data, run = sys.argv[1:]
    WORK[work](open_run(load_study(study, data, require_data=False), run))
except StudyError as error:
    sys.exit(f"error: {error}")

"""python -m lib.export <study> <data root, or ""> <run>: all files of a trained run, and its release if it has one."""

import sys

from lib.export.release import release
from lib.export.run import export_run, open_run
from lib.study import StudyError, load_study

try:
    run = open_run(load_study(sys.argv[1], sys.argv[2], require_data=False), sys.argv[3])
    export_run(run)
    if run.name in run.study.release:
        release(run)
except StudyError as error:
    sys.exit(f"error: {error}")

"""python -m lib.export <files | release> <study> <data root, or ""> <run>: make the files of a run; release it."""

import sys

from lib.settings import StudyError
from lib.study import load_study

if len(sys.argv) != 5 or sys.argv[1] not in ("files", "release"):
    sys.exit(f"usage: {__doc__}")
step, name, data, run = sys.argv[1:]
try:
    study = load_study(name, data, require_data=False)
    if step == "files":
        from lib.export.run import export_run
        from lib.runs import open_run

        export_run(open_run(study, run))
    else:
        from lib.export.bundle import release

        release(study, run)
except StudyError as error:
    sys.exit(f"error: {error}")

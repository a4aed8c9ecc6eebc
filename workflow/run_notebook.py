"""Run one notebook and leave it, executed, as .ipynb and .html in the report.

    run_notebook.py <notebook> <report file without suffix> <folder for unfinished> key=value …
    run_notebook.py --tidy <notebook> …

While it runs, and when it fails, the notebook lies in the folder for unfinished ones; the report is only
touched when every cell has passed. A failure is one line in <unfinished>/<step>.error, which run.py prints
last, below Snakemake's own messages.
"""

import fcntl
import html
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError
from pygments.formatters import HtmlFormatter
from tqdm.contrib.logging import logging_redirect_tqdm

from lib.paths import replacing

# What papermill tells besides the cells' own words, and objects that only a page can show.
UNTOLD = re.compile(r"(Executing|Ending) (Cell|notebook)|(Input|Output) Notebook|Working directory|<")

PAGE_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
pre { font: 13px/1.4 ui-monospace, monospace; margin: 0; white-space: pre-wrap }
.input_area { background: #f6f6f6; padding: .5rem; border-radius: 4px }
.prompt, .anchor-link { display: none }
.cell { margin: .8rem 0 }
.output_area { overflow-x: auto; margin-top: .4rem }
img { max-width: 100% }
table { border-collapse: collapse; font-size: 13px }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
"""


def main(notebook: Path, report: Path, unfinished: Path, parameters: dict[str, str]) -> int:
    """Run the notebook; the exit code is 0, or 1 after a failure."""
    show_progress(report.name)
    unfinished.mkdir(parents=True, exist_ok=True)
    draft = unfinished / f"{report.name}.ipynb"
    error = draft.with_suffix(".error")
    try:
        with only_one(draft.with_suffix(".lock"), report.name):
            execute(notebook, draft, parameters)
            publish(draft, report)
    except (PapermillExecutionError, DeadKernelError, BlockingIOError) as failure:
        error.write_text(f"error: {explain(failure, draft)}\n")
        return 1
    error.unlink(missing_ok=True)
    return 0


def show_progress(step: str) -> None:
    """Show what the cells print, such as epochs; papermill's bar says which cell it is."""
    logging.basicConfig(level=logging.INFO, format=f"[{step}] %(message)s")
    logging.getLogger("papermill").addFilter(lambda record: not UNTOLD.match(record.getMessage()))
    logging.getLogger("traitlets").setLevel(logging.ERROR)  # nbconvert on figures without alternative text


@contextmanager
def only_one(path: Path, step: str) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends, so nothing has to be unlocked after a kill.

    Raises BlockingIOError when another process runs the step, even one that outlived its Snakemake.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"{step} is already running; wait for it or end it") from None
        yield


def execute(notebook: Path, draft: Path, parameters: dict[str, str]) -> None:
    """Run every cell, showing which one and what it prints; `draft` is written cell by cell.

    The working directory is the notebook's folder, as in JupyterLab.
    """
    with logging_redirect_tqdm():  # printed lines above the bar of cells, not through it
        papermill.execute_notebook(notebook, draft, parameters, cwd=notebook.parent, log_output=True)


def publish(draft: Path, report: Path) -> None:
    """Move a finished notebook into the report, with a page to read beside it."""
    content = tidy(nbformat.read(draft, as_version=4))
    page = to_page(content, report.name)
    with replacing(report.with_name(f"{report.name}.html")) as path:
        path.write_text(page, encoding="utf-8")
    with replacing(report.with_name(f"{report.name}.ipynb")) as path:
        nbformat.write(content, path)
    draft.unlink()


def tidy(content: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leave out what is of this machine: paths and times that papermill notes, and what stderr says (bars that have
    run full, remarks of frameworks on the hardware).
    """
    for part in (content, *content.cells):
        part.metadata.pop("papermill", None)
        part.metadata.pop("execution", None)
    for cell in content.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return content


def to_page(content: nbformat.NotebookNode, title: str) -> str:
    """An HTML page that loads nothing from elsewhere: figures and a short style are inside, and there is no MathJax.

    The templates with a style of their own carry 270 kB of it, in every page of a report.
    """
    body = HTMLExporter(template_name="basic").from_notebook_node(content)[0]
    colours = HtmlFormatter(style="default").get_style_defs(".highlight")
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{PAGE_STYLE}{colours}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def explain(failure: Exception, draft: Path) -> str:
    """The failure in one line. What the user can put right (StudyError) already says what to do."""
    if isinstance(failure, BlockingIOError):
        return str(failure)
    if isinstance(failure, DeadKernelError):
        return f"the kernel of {draft.stem} was ended from outside, perhaps for want of memory; start again"
    message = " ".join(failure.evalue.split())
    if failure.ename == "StudyError":
        return message
    return f"{draft.stem}, cell {failure.cell_index}: {failure.ename}: {message} (see {draft})"


if __name__ == "__main__":
    if sys.argv[1] == "--tidy":
        for _file in sys.argv[2:]:
            nbformat.write(tidy(nbformat.read(_file, as_version=4)), _file)
        sys.exit()
    _notebook, _report, _unfinished, *_pairs = sys.argv[1:]
    _parameters = dict(pair.split("=", 1) for pair in _pairs)
    sys.exit(main(Path(_notebook).absolute(), Path(_report), Path(_unfinished), _parameters))

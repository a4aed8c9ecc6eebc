"""Execute one notebook and publish it in the report as .ipynb and .html.

    run_notebook.py <notebook> <report file without suffix> <folder of unfinished notebooks> key=value …
    run_notebook.py --tidy <notebook> …

A notebook that is running or has failed lies in the folder of unfinished notebooks; the report changes only when every
cell has passed. A failure is one line in <unfinished>/<step>.error, which run.py prints last, below Snakemake's own
messages.
"""

import base64
import html
import logging
import re
import sys
from pathlib import Path

# jsonschema, which checks notebooks, would build a parser of web addresses: two thirds of the time to import all this.
sys.modules["rfc3987_syntax"] = None

import nbformat
import papermill
from jinja2 import pass_context
from jinja2.runtime import Context
from latex2mathml.converter import convert
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from papermill.exceptions import PapermillExecutionError
from pygments.formatters import HtmlFormatter
from tqdm.contrib.logging import logging_redirect_tqdm

from lib.paths import locked, replacing
from lib.png import smaller

# Log lines of papermill itself, and of outputs that only a page can show.
NOISE = re.compile(r"(Executing|Ending) (Cell|notebook)|(Input|Output) Notebook|Working directory|<")

PAGE_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
body { overflow-wrap: anywhere }
pre { font: 13px/1.4 ui-monospace, monospace; margin: 0; white-space: pre-wrap }
.input_area { background: #f6f6f6; padding: .5rem; border-radius: 4px }
.prompt { display: none }
.cell { margin: .8rem 0 }
.output_area, .text_cell_render, math[display=block] { overflow-x: auto }
.output_area { margin-top: .4rem }
img { max-width: 100%; height: auto }
table { border-collapse: collapse; font-size: 13px }
th, td { overflow-wrap: normal; padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
"""


def main(notebook: Path, report: Path, unfinished: Path, parameters: dict[str, str]) -> int:
    """Execute and publish the notebook. Returns the exit code: 0, or 1 after a failure."""
    show_progress(report.name)
    unfinished.mkdir(parents=True, exist_ok=True)
    draft = unfinished / f"{report.name}.ipynb"
    error = draft.with_suffix(".error")
    try:
        # Also held by a step that has outlived its Snakemake.
        with locked(draft.with_suffix(".lock"), wait=False), logging_redirect_tqdm():  # prints above the progress bar
            papermill.execute_notebook(notebook, draft, parameters, cwd=notebook.parent, log_output=True)
            publish(draft, report)
    except (PapermillExecutionError, DeadKernelError, BlockingIOError) as failure:
        error.write_text(f"error: {explain(failure, draft)}\n")
        return 1
    error.unlink(missing_ok=True)
    return 0


def show_progress(step: str) -> None:
    """Show what the cells print, such as epochs; papermill's progress bar counts the cells."""
    logging.basicConfig(level=logging.INFO, format=f"[{step}] %(message)s")
    logging.getLogger("papermill").addFilter(lambda record: not NOISE.match(record.getMessage()))
    logging.getLogger("traitlets").setLevel(logging.ERROR)  # nbconvert on figures without alt text


def publish(draft: Path, report: Path) -> None:
    """Move an executed notebook into the report, with an HTML page beside it."""
    content = tidy(nbformat.read(draft, as_version=4))
    page = to_page(content, report.name)
    with replacing(report.with_name(f"{report.name}.html")) as path:
        path.write_text(page, encoding="utf-8")
    with replacing(report.with_name(f"{report.name}.ipynb")) as path:
        nbformat.write(content, path)
    draft.unlink()


def tidy(content: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove traces of the machine: papermill's paths and times, progress bars, and stderr (hardware warnings)."""
    content.metadata.pop("widgets", None)
    for part in (content, *content.cells):
        part.metadata.pop("papermill", None)
        part.metadata.pop("execution", None)
    for cell in content.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not debris(output)]
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                output.data["image/png"] = base64.b64encode(smaller(base64.b64decode(picture))).decode()
    return content


def debris(output: nbformat.NotebookNode) -> bool:
    return output.get("name") == "stderr" or "application/vnd.jupyter.widget-view+json" in output.get("data", {})


class MathML(IPythonRenderer):
    """Markdown whose equations a browser shows without a script from the network."""

    def block_math(self, body: str) -> str:
        return convert(body, display="block")

    def inline_math(self, body: str) -> str:
        return convert(body)


class PageExporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context: Context, source: str) -> str:
        return MarkdownWithMath(renderer=MathML(escape=False, exclude_anchor_links=True)).render(source)


def to_page(content: nbformat.NotebookNode, title: str) -> str:
    """A self-contained HTML page with its figures and a short style, readable on a phone and without a network.

    nbconvert's styled templates would add 270 kB to every page of a report.
    """
    body = PageExporter(template_name="basic").from_notebook_node(content)[0]
    colours = HtmlFormatter(style="default").get_style_defs(".highlight")
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{html.escape(title)}</title><style>{PAGE_STYLE}{colours}</style>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def explain(failure: Exception, draft: Path) -> str:
    """The failure in one line; a StudyError already says what to do."""
    if isinstance(failure, BlockingIOError):
        return f"{draft.stem} is already running; wait for it or stop it"
    if isinstance(failure, DeadKernelError):
        return f"the kernel of {draft.stem} was killed, perhaps because memory ran out; run the study again"
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

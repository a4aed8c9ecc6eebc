"""Build the page into data/app/ and serve it on this machine.

python -m lib.app               build, and serve on port 8000
python -m lib.app --port 9000   on another port
python -m lib.app --only        build; any server of files can serve the folder
python -m lib.app --model FILE  the page opens this ONNX file first: of hands, or of a MoViNet frame by frame
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from lib.app.build import assemble, policy
from lib.paths import home
from lib.settings import StudyError

TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}


class Handler(SimpleHTTPRequestHandler):
    """Serves the page with its policy, and never an old version of a file."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES  # those of Windows are up to its registry

    def end_headers(self) -> None:
        """Add what each answer carries."""
        self.send_header("Content-Security-Policy", policy())
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing of single requests."""


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of a folder on this machine alone; port 0: any that is free. Raises StudyError when it is taken."""
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=folder))
    except OSError as error:
        raise StudyError(f"port {port} cannot be used ({error.strerror}): make app PORT=<another>") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0, or 1 after a line on stderr that says what is wrong."""
    about, _, examples = __doc__.partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m lib.app", description=about, epilog=examples, formatter_class=raw)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--model", type=Path, metavar="FILE", help="an exported .onnx file")
    parser.add_argument("--only", action="store_true", help="build, and serve nothing")
    options = parser.parse_args(arguments)
    folder = home() / "data" / "app"
    try:
        assemble(folder, options.model)
        if options.only:
            print(f"{folder} holds the page")
            return 0
        with server(folder, options.port) as serving:
            print(f"http://localhost:{serving.server_port} (Ctrl-C ends it)", flush=True)
            serving.serve_forever()
    except (StudyError, OSError) as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())

"""wbuild for frontends in Python. See the README beside this folder.

    from wbuild import each_platform, frontend, pull

    @frontend
    def Build():
        each_platform(lambda platform: pull("debian:12", platform=platform))
"""

from collections.abc import Callable

from componentize_py_types import Err
from wit_world.imports import log as _log
from wit_world.imports import types as _types

from .failure import Failure, Line, Source, Span, at, warn
from .image import Image, ImageConfig, each_platform, pull, pull_all, require, yield_files, yield_image
from .request import (
    Context, build_arg, build_args, build_platform, context_files, definition, epoch, has_secret, ignore_patterns,
    labels, named_context, option, parse_ignore, platform_name, target_platforms, targets,
)
from .state import Files, Mount, Outcome, Platform, State, diff, evaluate, git, http, image, local, merge, mount, scratch


def frontend(work: Callable[[], None]) -> type:
    """The export of a frontend: the class `Build` that a component wants. Use it as

        @frontend
        def Build(): ...

    What `work` raises becomes the failure of the build.
    """

    class Build:
        def build(self) -> None:
            try:
                work()
            except Exception as error:
                raise Err(Failure.of(error).record) from None

    return Build


def log(text: str, severity: str = "note") -> None:
    """A line for the user; severity "error", "warning", "note" or "help"."""
    _log.log(_types.Severity[severity.upper()], str(text))

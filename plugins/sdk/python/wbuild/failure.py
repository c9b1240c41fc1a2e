"""Failures, and places in the sources that they point at."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from componentize_py_types import Err, Ok
from wit_world.imports import diagnostics, types

Span = types.Span


class Failure(Exception):
    """What a frontend raises when the build cannot go on.

    Anything else that is raised is shown as a bug of the frontend.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = "invalid",
        at: Span | None = None,
        help: str | None = None,
        hints: list[str] | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        shown = [_diagnostic(types.Severity.ERROR, message, at, help, code)] if at else []
        all_hints = list(hints or [])
        if help and not at:
            all_hints.append(help)
        self.record = types.Failure(kind, message, False, shown, [("hint", hint) for hint in all_hints])

    @staticmethod
    def of(error: BaseException) -> "Failure":
        """The failure of whatever was raised: ours, one that the host answered, or a bug."""
        if isinstance(error, Failure):
            return error
        failure = Failure("")
        if isinstance(error, Err) and isinstance(error.value, types.Failure):
            failure.record = error.value
            return failure
        lines = traceback.format_exception_only(error)[-1].strip()
        # Not `extract_tb`: it looks for the sources, and there is no file to be asked for.
        frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
        causes = [f"{code.co_filename}:{line}: {code.co_name}" for code, line in reversed(frames)]
        failure.record = types.Failure(
            "internal", f"the frontend failed: {lines}", False, [], [("cause", cause) for cause in causes[:8]]
        )
        return failure

    def placed(self, at: Span | None) -> "Failure":
        """This failure, shown at a place unless it has one."""
        if at and not self.record.diagnostics:
            shown = _diagnostic(types.Severity.ERROR, self.record.message, at, None, None)
            self.record.diagnostics.append(shown)
        return self


@contextmanager
def at(place: Span | None) -> Iterator[None]:
    """What fails inside is shown at this place, unless it has one of its own."""
    try:
        yield
    except Exception as error:
        raise Failure.of(error).placed(place) from error


def answer(result: Ok | Err):
    """Of a call that has an answer for each question: the value, or the failure raised."""
    if isinstance(result, Ok):
        return result.value
    raise Failure.of(result)


def warn(message: str, *, at: Span | None = None, help: str | None = None, code: str | None = None) -> None:
    """Tells the user something that does not end the build."""
    diagnostics.report(_diagnostic(types.Severity.WARNING, message, at, help, code))


def _diagnostic(severity, message, at, help, code) -> types.Diagnostic:
    labels = [types.Label(at, "", True)] if at else []
    return types.Diagnostic(severity, code, message, labels, help, None, [])


@dataclass(frozen=True)
class Line:
    """A line of a source, without its line break."""

    text: str
    number: int
    at: Span


class Source:
    """A text that failures can point into. Places are indexes of `text`, as Python counts."""

    def __init__(self, name: str, data: bytes | str, language: str = "") -> None:
        raw = data.encode() if isinstance(data, str) else data
        self.name = name
        self.text = raw.decode(errors="replace")
        self._plain = len(raw) == len(self.text)
        self._id = diagnostics.add_source(name, language, raw)

    def span(self, start: int, end: int | None = None) -> Span:
        """The place of `text[start:end]`."""
        return Span(self._id, self._offset(start), self._offset(start if end is None else max(start, end)))

    def find(self, needle: str, start: int = 0) -> Span | None:
        """The place of the first `needle`, or None."""
        found = self.text.find(needle, start)
        return None if found < 0 else self.span(found, found + len(needle))

    def lines(self) -> list[Line]:
        """The lines with their places."""
        lines: list[Line] = []
        start = 0
        for text in self.text.split("\n"):
            shown = text.removesuffix("\r")
            lines.append(Line(shown, len(lines) + 1, self.span(start, start + len(shown))))
            start += len(text) + 1
        return lines

    def _offset(self, index: int) -> int:
        return index if self._plain else len(self.text[:index].encode())

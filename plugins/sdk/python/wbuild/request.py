"""What the caller asks for: definition, options, platforms, contexts.

Every question is remembered by the host and decides whether the frontend has to run again, so nothing
is asked beforehand.
"""

import posixpath
from collections.abc import Sequence

from wit_world.imports import request

from .failure import Source, Span
from .state import Platform, State, git, http, image, local


def definition(language: str = "") -> Source:
    """The definition file, as a source that failures can point into."""
    file = request.definition()
    return Source(file.name, file.data, language)


def option(name: str, otherwise: str | None = None) -> str | None:
    """An option of the caller."""
    value = request.opt(name)
    return otherwise if value is None else value


def build_arg(name: str, otherwise: str | None = None) -> str | None:
    """A build argument."""
    return option(f"build-arg:{name}", otherwise)


def build_args() -> dict[str, str]:
    """All build arguments."""
    return dict(request.opts("build-arg:"))


def labels() -> dict[str, str]:
    """Labels that the caller wants on the image."""
    return dict(request.opts("label:"))


def targets() -> list[str]:
    """What is to be built, by name; none is the default."""
    return request.targets()


def target_platforms() -> list[Platform]:
    """What to build for; at least one."""
    return request.target_platforms()


def build_platform() -> Platform:
    """Where steps run natively."""
    return request.build_platform()


def platform_name(platform: Platform) -> str:
    """`linux/arm/v7`."""
    return "/".join(filter(None, (platform.os, platform.architecture, platform.variant)))


def has_secret(id: str) -> bool:
    """Does the caller offer this secret?"""
    return request.has_secret(id)


def epoch() -> int | None:
    """SOURCE_DATE_EPOCH, seconds since 1970, if it is pinned."""
    return request.epoch()


class Context:
    """A context that the caller gave by name. Its state is made when it is first looked at."""

    def __init__(self, found: request.NamedContext, platform: Platform | None) -> None:
        self.kind = found.kind()
        self.identifier = found.identifier()
        self.attrs = found.attrs()
        self.config = found.config()
        self._root = found.root()
        self._platform = platform

    @property
    def state(self) -> State:
        keys = {key.replace("-", "_"): value for key, value in self.attrs}
        match self.kind:
            case "input":
                return State(self._root)
            case "local":
                return local(self.identifier)
            case "git":
                return git(self.identifier, "", **keys)
            case "http":
                return http(self.identifier, **keys)
            case _:
                return image(self.identifier, platform=self._platform, **keys)


def named_context(name: str, platform: Platform | None = None) -> Context | None:
    """A context that the caller gave by name."""
    found = request.context(name, platform)
    return Context(found, platform) if found else None


def context_files(
    *,
    name: str = "context",
    ignore_file: str | None = ".dockerignore",
    include: Sequence[str] = (),
    exclude: Sequence[str | tuple[str, Span]] = (),
) -> State:
    """The files of the main context, or of another one, without what an ignore file in it names."""
    context = named_context(name)
    if context and context.kind != "local":
        return context.state
    identifier = context.identifier if context else name
    ignored = ignore_patterns(identifier, ignore_file) if ignore_file else []
    return local(identifier, include=include, exclude=[*ignored, *exclude]).named("context")


def ignore_patterns(context: str, file: str) -> list[tuple[str, Span]]:
    """The patterns of an ignore file in a local context, with their places."""
    tree = local(context, include=[file]).named(f"ignore file {file}")
    if tree.stat(file) is None:
        return []
    return parse_ignore(Source(file, tree.read_file(file), "dockerignore"))


def parse_ignore(source: Source) -> list[tuple[str, Span]]:
    """The patterns of an ignore file, with their places."""
    patterns: list[tuple[str, Span]] = []
    for line in source.lines():
        text = line.text.removeprefix("\ufeff")
        if text.startswith("#") or not text.strip():
            continue
        sign, rest = ("!", text.strip()[1:].strip()) if text.strip().startswith("!") else ("", text.strip())
        cleaned = posixpath.normpath(rest) if rest else ""
        if cleaned not in ("/", "//"):
            cleaned = cleaned.lstrip("/")
        if cleaned != ".":
            patterns.append((sign + cleaned, line.at))
    return patterns

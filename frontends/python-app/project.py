"""What pyproject.toml or requirements.txt says, checked, with the places it says it at."""

import re
import tomllib
from dataclasses import dataclass, field

from wbuild import Failure, Source, Span

#: Keys of [tool.wbuild]; the text says what they want.
SETTINGS = {
    "base": (str, "a reference to an image with Python in it"),
    "runtime": (str, "a reference to an image with Python in it"),
    "user": (str, "a text"),
    "command": ((str, list), "a text or a list of texts"),
    "ports": (list, "a list of ports"),
    "env": (dict, "a table of texts"),
    "packages": (list, "a list of names of Debian packages"),
}
_PACKAGE = re.compile(r"^[a-z0-9][a-z0-9+.:=~-]*$")
_PORT = re.compile(r"^\d{1,5}(/(tcp|udp|sctp))?$")


@dataclass
class Project:
    source: Source
    dependencies: list[str] = field(default_factory=list)
    requires_python: str | None = None
    requirements_file: str | None = None
    constraint_files: list[str] = field(default_factory=list)
    settings: dict = field(default_factory=dict)
    metadata: dict = field(default_factory=dict)
    is_package: bool = False

    @staticmethod
    def read(source: Source) -> "Project":
        if source.name.endswith(".toml"):
            return _pyproject(source)
        name = source.name.rsplit("/", 1)[-1]
        others = [
            match[1] for line in source.lines() if (match := re.match(r"\s*(?:-r|-c|--requirement|--constraint)[\s=]+(\S+)", line.text))
        ]
        return Project(source, requirements_file=name, constraint_files=others)

    def command(self, venv: str) -> list[str]:
        """What the image runs."""
        command = self.settings.get("command")
        if command:
            return command if isinstance(command, list) else ["/bin/sh", "-c", command]
        scripts = self.metadata.get("scripts", {})
        if len(scripts) == 1:
            return [f"{venv}/bin/{next(iter(scripts))}"]
        if scripts:
            raise Failure(
                "there are several scripts, and none is said to be the program", at=self.at("project.scripts"),
                help='name it: command = ["…"] in [tool.wbuild]',
            )
        return [f"{venv}/bin/python", "main.py"]

    def labels(self) -> dict[str, str]:
        values = {"title": self.metadata.get("name"), "version": self.metadata.get("version"), "description": self.metadata.get("description")}
        return {f"org.opencontainers.image.{key}": value for key, value in values.items() if isinstance(value, str) and value}

    def at(self, key: str) -> Span | None:
        """The place where a key, or a table, is first written."""
        pattern = re.compile(rf"^[ \t]*(?:\[{re.escape(key)}\]|{re.escape(key)}(?=[ \t]*=))", re.MULTILINE)
        found = pattern.search(self.source.text)
        return self.source.span(found.start(), found.end()) if found else None


def _pyproject(source: Source) -> Project:
    try:
        document = tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"at line (\d+)", str(error))
        lines = source.lines()
        shown = lines[min(int(place[1]), len(lines)) - 1].at if place else source.span(0, len(source.text))
        raise Failure(f"{source.name} is not TOML: {error}", at=shown) from error
    metadata = document.get("project", {})
    settings = document.get("tool", {}).get("wbuild", {})
    dependencies = metadata.get("dependencies", [])
    project = Project(
        source, dependencies=dependencies, requires_python=metadata.get("requires-python"), settings=settings,
        metadata=metadata, is_package="build-system" in document,
    )
    if not isinstance(dependencies, list) or not all(isinstance(one, str) and "\n" not in one for one in dependencies):
        raise Failure("project.dependencies is no list of texts", at=project.at("dependencies"))
    for key, value in settings.items():
        if key not in SETTINGS:
            raise Failure(f"{key} is no setting of [tool.wbuild]", at=project.at(key), help="there are " + ", ".join(SETTINGS))
        if not _fits(key, value):
            raise Failure(f"{key} is not {SETTINGS[key][1]}", at=project.at(key))
    return project


def _fits(key: str, value: object) -> bool:
    if not isinstance(value, SETTINGS[key][0]) or not value:
        return False
    match key:
        case "ports":
            return all(_PORT.match(str(one)) for one in value)
        case "packages":
            return all(isinstance(one, str) and _PACKAGE.match(one) for one in value)
        case "env":
            return all(isinstance(one, str) for one in value.values())
        case "command":
            return isinstance(value, str) or all(isinstance(one, str) for one in value)
        case _:
            return True

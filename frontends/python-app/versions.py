"""Version ranges as `requires-python` has them, as far as choosing a base image needs it."""

import re

#: Releases to choose from, the preferred first.
RELEASES = ((3, 13), (3, 12), (3, 14), (3, 11), (3, 10), (3, 9))
_CLAUSE = re.compile(r"^(~=|==|!=|<=|>=|<|>)\s*(\d+(?:\.\d+)*)(\.\*)?$")


def python_tag(specifier: str) -> str | None:
    """The tag of a python image for a specifier: "3.13", or "3.11.4" if no other will do.

    None if it cannot be read, or no release is in it.
    """
    clauses = [_CLAUSE.match(clause.strip()) for clause in specifier.split(",") if clause.strip()]
    if not all(clauses):
        return None
    parsed = [(match[1], tuple(map(int, match[2].split("."))), bool(match[3])) for match in clauses]
    for sign, version, wildcard in parsed:
        if sign == "==" and not wildcard and len(version) > 2:
            return ".".join(map(str, version))
    fitting = (release for release in RELEASES if all(_holds(release, *clause) for clause in parsed))
    release = next(fitting, None)
    return release and ".".join(map(str, release))


def _holds(release: tuple[int, int], sign: str, version: tuple[int, ...], wildcard: bool) -> bool:
    """Whether the newest version of a release, which is what its tag means, satisfies a clause."""
    newest = (*release, 1_000_000)
    prefix = newest[: len(version)]
    match sign:
        case ">=":
            return newest >= version
        case ">":
            return prefix > version
        case "<=":
            return newest <= version or prefix == version and len(version) < 3
        case "<":
            return newest < version
        case "~=":
            return newest >= version and newest[: len(version) - 1] == version[:-1]
        case "==":
            return prefix == version if wildcard or len(version) < 3 else False
        case _:
            return not (prefix == version if wildcard or len(version) < 3 else False)

"""Attributes and paths: the forms in which options cross the border."""

from collections.abc import Iterable, Mapping

Pairs = Mapping[str, str] | Iterable[tuple[str, str]]


def attrs(**options: object) -> list[tuple[str, str]]:
    """`keep_times=True, exclude=["a", "b"]` as the host wants it. What is None is left out."""
    result: list[tuple[str, str]] = []
    for name, value in options.items():
        key = name.rstrip("_").replace("_", "-")
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if one is not None:
                result.append((key, str(one).lower() if isinstance(one, bool) else str(one)))
    return result


def pairs(value: Pairs | None) -> list[tuple[str, str]]:
    """A mapping, or pairs, as a list of pairs."""
    if value is None:
        return []
    items = value.items() if isinstance(value, Mapping) else value
    return [(str(name), str(text)) for name, text in items]


def replaced(old: Iterable[tuple[str, str]], new: Pairs) -> list[tuple[str, str]]:
    """The old pairs with the new ones in place of those of the same name."""
    added = pairs(new)
    names = {name for name, _ in added}
    return [pair for pair in old if pair[0] not in names] + added


def join(directory: str, path: str) -> str:
    """`path` as seen from `directory`."""
    return path if path.startswith("/") else f"{directory.rstrip('/')}/{path}"

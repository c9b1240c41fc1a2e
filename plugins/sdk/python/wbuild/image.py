"""Images: their configs, those that builds begin with, and those that builds yield."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wit_world.imports import inspect, results

from ._text import Pairs, attrs, pairs, replaced
from .failure import Failure, answer
from .request import labels, named_context, target_platforms
from .state import Platform, State, image


@dataclass(frozen=True)
class ImageConfig:
    """The config of an image (OCI image specification). Every method answers a new one."""

    json: dict

    @staticmethod
    def of(platform: Platform) -> "ImageConfig":
        """An empty one for a platform."""
        variant = {"variant": platform.variant} if platform.variant else {}
        return ImageConfig({"architecture": platform.architecture, "os": platform.os, **variant, "config": {}, "history": []})

    @staticmethod
    def parse(text: str, what: str) -> "ImageConfig":
        """From the JSON of an image; the failure says what it was of."""
        try:
            value = json.loads(text)
        except ValueError as error:
            raise Failure(f"the config of {what} is not JSON: {error}") from error
        if not isinstance(value, dict) or not isinstance(value.get("config") or {}, dict):
            raise Failure(f"the config of {what} is no OCI image config")
        value.pop("rootfs", None)  # The host lists the layers itself.
        value["config"] = value.get("config") or {}
        return ImageConfig(value)

    @property
    def variables(self) -> list[tuple[str, str]]:
        """The variables, as pairs."""
        return [tuple(one.partition("=")[::2]) for one in self.json["config"].get("Env") or []]

    def set(self, key: str, value: object) -> "ImageConfig":
        """One key of the inner config, e.g. `set("StopSignal", "SIGINT")`; None removes it."""
        inner = {**self.json["config"], key: value}
        if value is None:
            del inner[key]
        return ImageConfig({**self.json, "config": inner})

    def env(self, variables: Pairs) -> "ImageConfig":
        return self.set("Env", [f"{name}={value}" for name, value in replaced(self.variables, variables)])

    def label(self, values: Pairs) -> "ImageConfig":
        return self.set("Labels", {**(self.json["config"].get("Labels") or {}), **dict(pairs(values))} or None)

    def expose(self, *ports: str | int) -> "ImageConfig":
        """Ports: "80", "53/udp"."""
        added = {str(port) if "/" in str(port) else f"{port}/tcp": {} for port in ports}
        return self.set("ExposedPorts", {**(self.json["config"].get("ExposedPorts") or {}), **added})

    def cmd(self, command: str | Sequence[str]) -> "ImageConfig":
        """A list, or a text for the shell."""
        return self.set("Cmd", _shell(command))

    def entrypoint(self, command: str | Sequence[str]) -> "ImageConfig":
        """A list, or a text for the shell. The command of the base goes."""
        return self.set("Entrypoint", _shell(command)).set("Cmd", None)

    def workdir(self, path: str) -> "ImageConfig":
        return self.set("WorkingDir", path)

    def user(self, user: str) -> "ImageConfig":
        return self.set("User", user)

    def history(self, names: Sequence[str] | None) -> "ImageConfig":
        """With the names of a state's layers as history; unchanged if they are not known."""
        added = [{"created_by": name} for name in names or ()]
        return ImageConfig({**self.json, "history": [*(self.json.get("history") or []), *added]}) if added else self


@dataclass(frozen=True)
class Image:
    """A state and the config of its image."""

    state: State
    config: ImageConfig


def pull(reference: str, *, platform: Platform | None = None, **options) -> Image:
    """An image to begin with. The state has its variables, directory and user.

    A context of this name takes its place, as in a Dockerfile. "scratch" is nothing. Options:
    resolve, checksum.
    """
    return pull_all([reference], platform=platform, **options)[0]


def pull_all(references: Sequence[str], *, platform: Platform | None = None, **options) -> list[Image]:
    """Several images beside each other."""
    platform = platform or target_platforms()[0]
    found: dict[int, Image] = {}
    wanted: list[tuple[int, inspect.ImageRequest]] = []
    for index, reference in enumerate(references):
        if reference == "scratch":
            found[index] = Image(State(platform=platform), ImageConfig.of(platform))
            continue
        context = named_context(reference, platform)
        if context and context.kind not in ("image", "oci-layout"):
            config = ImageConfig.parse(context.config, reference) if context.config else ImageConfig.of(platform)
            found[index] = _based(context.state, config, platform)
            continue
        keys = context.attrs if context else attrs(**options)
        name = context.identifier if context else reference
        wanted.append((index, inspect.ImageRequest(name, platform, keys)))
    answers = inspect.resolve_images([request for _, request in wanted]) if wanted else []
    for (index, request), result in zip(wanted, answers):
        info = answer(result)
        keys = {key.replace("-", "_"): value for key, value in request.attrs}
        state = image(info.reference, platform=platform, **keys).named(f"image {references[index]}")
        found[index] = _based(state, ImageConfig.parse(info.config, references[index]), platform)
    return [found[index] for index in range(len(references))]


def yield_image(made: Image, *, name: str = "", platform: Platform | None = None, **options) -> None:
    """Yields an image; labels of the caller (`--label`) are set.

    The name "" is the image that names of the caller's are for. Options: tag, push_tag, annotation.
    """
    config = made.config.label(labels()).history(made.state.history)
    text = json.dumps(config.json, separators=(",", ":"))
    results.image(name, platform or target_platforms()[0], made.state.output, text, attrs(**options))


def yield_files(state: State, *, name: str = "", path: str = "/", platform: Platform | None = None, **options) -> None:
    """Yields files. Options: dest."""
    results.files(name, platform, state.output, path, attrs(**options))


def require(state: State) -> None:
    """Yields what must succeed though nothing of it is kept, a test for instance."""
    results.require(state.output)


def each_platform(make: Callable[[Platform], Image]) -> None:
    """Yields the image that `make(platform)` answers, for every target platform."""
    for platform in target_platforms():
        yield_image(make(platform), platform=platform)


def _based(state: State, config: ImageConfig, platform: Platform) -> Image:
    inner = config.json["config"]
    state = State(state.output, platform).env(config.variables).dir(inner.get("WorkingDir") or "/")
    return Image(state.user(inner["User"]) if inner.get("User") else state, config)


def _shell(command: str | Sequence[str]) -> list[str]:
    return ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)

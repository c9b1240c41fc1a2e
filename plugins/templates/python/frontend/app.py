"""A frontend: it reads a definition and describes the image that is to be made. Nothing runs here;
wbuild runs what the result needs, and remembers it.

The definition is lines of a word and a text, see example/definition.
"""

from wbuild import Failure, Image, Platform, at, context_files, definition, each_platform, frontend, pull
from wbuild.failure import Line

WORDS = ("base", "run", "files", "start")


@frontend
def Build() -> None:
    lines = [line for line in definition("@NAME@").lines() if line.text.strip() and not line.text.startswith("#")]
    # Once for every platform that the user wants.
    each_platform(lambda platform: make(lines, platform))


def make(lines: list[Line], platform: Platform) -> Image:
    made = pull("scratch", platform=platform)
    state, config = made.state, made.config
    for line in lines:
        word, _, text = line.text.partition(" ")
        # What fails in here, now or when the step runs, is shown at the line.
        with at(line.at):
            match word:
                case "base":
                    made = pull(text, platform=platform)
                    state, config = made.state, made.config
                case "run":
                    state = state.run(text, at=line.at)
                case "files":
                    state = state.copy(context_files(), text, "/app/", at=line.at)
                case "start":
                    config = config.workdir("/app").cmd(text)
                case _:
                    raise Failure(f"{word} is no word that begins a line", help="there are " + ", ".join(WORDS), at=line.at)
    return Image(state, config)

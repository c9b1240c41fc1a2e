"""A frontend that reads pyproject.toml or requirements.txt: it installs the dependencies into a virtual
environment, apart from the sources, and makes an image that starts the program. See README.md."""

from project import Project
from versions import python_tag
from wbuild import (
    Failure, Image, Platform, State, at, build_arg, context_files, definition, each_platform, frontend, mount, option,
    pull_all, targets,
)

DEFAULT = "3.13"
APP = "/app"
VENV = "/opt/venv"
TARGETS = ("image", "dependencies")
PIP = f"{VENV}/bin/pip install --no-compile --disable-pip-version-check --cache-dir /var/cache/pip"


@frontend
def Build() -> None:
    project = Project.read(definition("toml"))
    wanted = targets() or ["image"]
    if len(wanted) > 1 or wanted[0] not in TARGETS:
        raise Failure(f"there is no target {', '.join(wanted)}", kind="not-found", hints=["targets are " + ", ".join(TARGETS)])
    files = context_files(exclude=["**/__pycache__", ".venv"])
    each_platform(lambda platform: make(project, files, wanted[0], platform))


def bases(project: Project) -> tuple[str, str]:
    """The image to build in and the one to run in."""
    tag = DEFAULT
    if project.requires_python:
        found = python_tag(project.requires_python)
        if not found:
            raise Failure(
                f"no release of Python is known for {project.requires_python!r}", at=project.at("requires-python"),
                help="name the image yourself: base in [tool.wbuild], or the build argument PYTHON_IMAGE",
            )
        tag = found
    base = build_arg("PYTHON_IMAGE") or project.settings.get("base") or f"python:{tag}"
    slim = f"{base}-slim" if base == f"python:{tag}" else base
    return base, build_arg("PYTHON_RUNTIME_IMAGE") or project.settings.get("runtime") or slim


def make(project: Project, files: State, wanted: str, platform: Platform) -> Image:
    base, runtime = bases(project)
    with at(project.at("requires-python") or project.source.span(0, 1)):
        building, running = pull_all([base, runtime], platform=platform)
    cache = mount.cache("/var/cache/pip", id="python-app/pip")
    packages = project.settings.get("packages", [])
    command = project.command(VENV)

    # As root whatever the images say: it is the result that has a user.
    state = building.state.dir(APP).user("0:0")
    if packages:
        state = state.run(apt_install(packages), at=project.at("packages"))
    # The environment has copies of the interpreter's links only, so it works wherever that is the same.
    state = state.run(["python3", "-m", "venv", VENV], name="make a virtual environment")
    # Only what an installation reads is there, so other changes do not repeat it.
    if project.requirements_file:
        manifests = [project.requirements_file, *project.constraint_files]
        state = state.copy(files, ".", APP, include=manifests, name="copy requirements")
        state = state.run(f"{PIP} -r {project.requirements_file}", mounts=[cache], at=project.source.span(0, 1))
    elif project.dependencies:
        listed = "".join(f"{one}\n" for one in project.dependencies)
        state = state.write("/tmp/requirements.txt", listed, name="write the dependencies")
        state = state.run(f"{PIP} -r /tmp/requirements.txt", mounts=[cache], name="install the dependencies", at=project.at("dependencies"))
    if wanted == "dependencies":
        return Image(state, building.config.workdir(APP))
    state = state.copy(files, ".", APP, name="copy sources")
    if project.is_package:
        state = state.run(f"{PIP} --no-deps .", mounts=[cache], at=project.at("build-system"))

    result = running.state.user("0:0")
    if packages:
        result = result.run(apt_install(packages), at=project.at("packages"))
    result = result.copy(state, f"{VENV}/.", VENV, name=f"copy {VENV} from the build")
    if not project.is_package:
        result = result.copy(state, f"{APP}/.", APP, name=f"copy {APP} from the build")
    path = dict(running.config.variables).get("PATH", "/usr/local/bin:/usr/bin:/bin")
    config = (
        running.config.workdir(APP).user(project.settings.get("user", "1000:1000"))
        .env({"PATH": f"{VENV}/bin:{path}", "PYTHONUNBUFFERED": "1", **project.settings.get("env", {})})
        .expose(*project.settings.get("ports", [])).cmd(command).label({**project.labels(), **repository()})
    )
    return Image(result, config)


def apt_install(packages: list[str]) -> str:
    return (
        f"apt-get update && apt-get install --yes --no-install-recommends {' '.join(packages)}"
        " && rm -rf /var/lib/apt/lists/*"
    )


def repository() -> dict[str, str]:
    """Labels about the repository that the context lies in."""
    facts = {"source": option("vcs:source"), "revision": option("vcs:revision")}
    return {f"org.opencontainers.image.{key}": value for key, value in facts.items() if value}

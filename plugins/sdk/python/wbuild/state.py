"""Build graphs: immutable states of a file system, and what can be done to them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from wit_world.imports import graph, inspect, types

from ._text import Pairs, attrs, join, pairs, replaced
from .failure import Span, answer

Platform = types.Platform
Mount = Callable[[graph.ExecOp], None]

_PIECE = 1 << 20
#: What a copy does unless the caller says otherwise.
_COPY = {"create_dest": True, "wildcard": True, "contents_only": True, "keep_times": True}


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    exit_code: int
    stdout: str
    stderr: str
    state: "State"


@dataclass(frozen=True)
class State:
    """A file system, described.

    Nothing runs until a result or a question needs it, and every method answers a new state: one
    state can be gone on from in several ways. What `env`, `dir` and `user` set is where the commands
    that follow run; it goes into no image by itself, see `ImageConfig`.
    """

    output: graph.Output | None = None
    platform: Platform | None = None
    variables: tuple[tuple[str, str], ...] = ()
    directory: str = "/"
    who: str | None = None
    #: What its layers were made by; None if that is not known.
    history: tuple[str, ...] | None = ()

    def env(self, variables: Pairs) -> "State":
        """The variables of commands that follow."""
        return replace(self, variables=tuple(replaced(self.variables, variables)))

    def dir(self, path: str) -> "State":
        """Where commands that follow run."""
        return replace(self, directory=join(self.directory, path))

    def user(self, user: str) -> "State":
        """Who runs commands that follow: `user[:group]`."""
        return replace(self, who=user)

    def run(
        self,
        command: str | Sequence[str],
        *,
        env: Pairs | None = None,
        dir: str | None = None,
        user: str | None = None,
        network: str | None = None,
        security: str | None = None,
        hostname: str | None = None,
        mounts: Iterable[Mount] = (),
        secret_env: dict[str, str] | None = None,
        add_hosts: Pairs | None = None,
        exit_codes: list[int] | None = None,
        volatile_env: Pairs | None = None,
        name: str | None = None,
        at: Span | None = None,
        group: str | None = None,
        no_cache: bool = False,
        _limit: int | None = None,
    ) -> "State":
        """After a command: a text for `/bin/sh -c`, or a program and its arguments."""
        text = isinstance(command, str)
        op = graph.ExecOp(["/bin/sh", "-c", command] if text else list(command))
        op.env(list(self.variables) + pairs(env))
        op.cwd(self.directory if dir is None else join(self.directory, dir))
        for value, setter in (
            (user or self.who, op.user), (self.platform, op.platform), (network, op.network),
            (security, op.security), (hostname, op.hostname), (exit_codes, op.valid_exit_codes),
            (pairs(volatile_env), op.volatile_env), (_limit, op.capture),
        ):
            if value:
                setter(value)
        for host, address in pairs(add_hosts):
            op.add_host(host, address)
        op.bind("/", self.output, "", "rw", [])
        for mount in mounts:
            mount(op)
        for variable, secret in (secret_env or {}).items():
            op.secret_env(variable, secret, True)
        shown = name or (command if text else " ".join(command))
        return self._next(graph.exec(op)[0], shown, at, group, no_cache)

    def capture(self, command: str | Sequence[str], *, limit: int = 65536, **options) -> Outcome:
        """Runs a command now and answers what it did. Any exit code is an answer."""
        state = self.run(command, _limit=limit, **options)
        outcome = inspect.outcome_of(state.output)
        text = lambda stream: outcome.read(stream, 0, outcome.size(stream)).decode(errors="replace")
        return Outcome(outcome.exit_code(), text("stdout"), text("stderr"), state)

    def copy(self, source: "State", paths: str | Sequence[str], target: str, *, name=None, at=None, group=None, **options) -> "State":
        """Copies paths of another state; options are those of `file-op.copy`, with _ for -."""
        given = [paths] if isinstance(paths, str) else list(paths)
        return self.files(
            lambda files: files.copy(source, given, target, **options),
            name=name or f"copy {' '.join(given)} {target}", at=at, group=group,
        )

    def write(self, path: str, data: str | bytes, *, name=None, at=None, group=None, **options) -> "State":
        """Writes a file. Options: mode, chown, timestamp."""
        return self.files(lambda files: files.write(path, data, **options), name=name or f"write {path}", at=at, group=group)

    def mkdir(self, path: str, *, name=None, at=None, group=None, **options) -> "State":
        """Makes a directory and its parents. Options: mode, chown, timestamp, parents."""
        return self.files(lambda files: files.mkdir(path, **options), name=name or f"mkdir {path}", at=at, group=group)

    def remove(self, path: str, *, name=None, at=None, group=None, **options) -> "State":
        """Removes a path and what is below it. Options: wildcard, allow_missing."""
        return self.files(lambda files: files.remove(path, **options), name=name or f"remove {path}", at=at, group=group)

    def symlink(self, path: str, target: str, *, name=None, at=None, group=None, **options) -> "State":
        """Makes a symbolic link."""
        return self.files(lambda files: files.symlink(path, target, **options), name=name or f"link {path}", at=at, group=group)

    def files(self, work: Callable[["Files"], object], *, name: str = "files", at: Span | None = None, group: str | None = None) -> "State":
        """Several file actions as one layer."""
        op = graph.FileOp(self.output)
        if at:
            op.mark(at)
        work(Files(op, self.directory))
        return self._next(graph.file(op), name, at, group, False)

    def named(self, name: str, *, at: Span | None = None, group: str | None = None) -> "State":
        """This state with a name, a place and a group for progress and errors."""
        if self.output:
            _annotate(self.output, name, at, group)
        return self

    def read_text(self, path: str, *, limit: int = 16 << 20) -> str:
        """Reads a text file now."""
        return self.read_file(path, limit=limit).decode(errors="replace")

    def read_file(self, path: str, *, limit: int = 16 << 20) -> bytes:
        """Reads a file now. What is longer than `limit` is cut."""
        data = b""
        while len(data) < limit:
            piece = inspect.read_file(self._root(), path, len(data), min(_PIECE, limit - len(data)))
            if not piece:
                break
            data += piece
        return data

    def stat(self, path: str) -> inspect.Entry | None:
        """What is at a path."""
        return inspect.stat(self.output, path, []) if self.output else None

    def read_dir(self, path: str, *, pattern: str | list[str] | None = None, recursive: bool | None = None) -> list[inspect.Entry]:
        """All entries of a directory, sorted."""
        entries: list[inspect.Entry] = []
        while True:
            after = entries[-1].path if entries else None
            more = inspect.read_dir(self._root(), path, after, 10000, attrs(pattern=pattern, recursive=recursive))
            entries += more
            if len(more) < 10000:
                return entries

    def _root(self) -> graph.Output:
        if self.output is None:
            raise ValueError("this state is empty")
        return self.output

    def _next(self, output: graph.Output, name: str, at, group, no_cache: bool) -> "State":
        _annotate(output, name, at, group)
        if no_cache:
            graph.ignore_cache(output)
        history = None if self.history is None else (*self.history, name)
        return replace(self, output=output, history=history)


class Files:
    """File actions that make one layer. Relative targets are below the state's directory."""

    def __init__(self, op: graph.FileOp, directory: str) -> None:
        self._op = op
        self._directory = directory

    def copy(self, source: State, paths: str | Sequence[str], target: str, **options) -> "Files":
        output = source.output or graph.file(graph.FileOp(None))
        given = [paths] if isinstance(paths, str) else list(paths)
        self._op.copy(output, given, join(self._directory, target), attrs(**{**_COPY, **options}))
        return self

    def write(self, path: str, data: str | bytes, **options) -> "Files":
        raw = data.encode() if isinstance(data, str) else data
        self._op.write(join(self._directory, path), raw, attrs(**options))
        return self

    def mkdir(self, path: str, **options) -> "Files":
        self._op.mkdir(join(self._directory, path), attrs(**{"parents": True, **options}))
        return self

    def remove(self, path: str, **options) -> "Files":
        self._op.remove(join(self._directory, path), attrs(**options))
        return self

    def symlink(self, path: str, target: str, **options) -> "Files":
        self._op.symlink(join(self._directory, path), target, attrs(**options))
        return self


class mount:
    """Mounts of `State.run`."""

    @staticmethod
    def cache(target: str, *, id: str | None = None, sharing: str = "shared", source: State | None = None, **options) -> Mount:
        """A directory that outlives builds. Options: seed_path, mode, uid, gid, readonly."""
        return lambda op: op.cache_dir(target, id or target, sharing, source.output if source else None, attrs(**options))

    @staticmethod
    def bind(target: str, source: State, *, path: str = "", access: str = "ro") -> Mount:
        """Files of another state; access "ro" or "discard"."""
        return lambda op: op.bind(target, source.output, path, access, [])

    @staticmethod
    def tmpfs(target: str, **options) -> Mount:
        """Options: size, mode, uid, gid."""
        return lambda op: op.tmpfs(target, attrs(**options))

    @staticmethod
    def secret(target: str, *, id: str | None = None, required: bool = True, **options) -> Mount:
        """A secret as a file. Options: mode, uid, gid."""
        return lambda op: op.secret_file(target, id or target.rsplit("/", 1)[-1], required, attrs(**options))

    @staticmethod
    def ssh(target: str, *, id: str = "default", required: bool = True, **options) -> Mount:
        """The socket of an ssh agent. Options: mode, uid, gid."""
        return lambda op: op.ssh(target, id, required, attrs(**options))


def scratch(platform: Platform | None = None) -> State:
    """Nothing: an empty file system."""
    return State(platform=platform)


def image(reference: str, *, platform: Platform | None = None, **options) -> State:
    """An image as it is, without its config; see `pull` for both. Options: resolve, checksum, store."""
    return State(graph.image(reference, platform, attrs(**options)), platform)


def local(
    name: str,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str | tuple[str, Span]] = (),
    follow: Sequence[str] = (),
) -> State:
    """A directory of the caller's. Patterns are those of ignore files."""
    source = graph.LocalSource(name)
    for pattern in include:
        source.include(pattern)
    for one in exclude:
        pattern, place = (one, None) if isinstance(one, str) else one
        source.exclude(pattern, place)
    for path in follow:
        source.follow(path)
    return State(graph.local(source))


def git(url: str, reference: str = "", **options) -> State:
    """A repository at a branch, tag or commit. Options are those of `graph.git`, with _ for -."""
    return State(graph.git(url, reference, attrs(**options)))


def http(url: str, *, checksum: str | None = None, **options) -> State:
    """A tree with one file from a URL. Options are those of `graph.http`, with _ for -."""
    return State(graph.http(url, checksum, attrs(**options)))


def merge(*states: State) -> State:
    """The layers of the later states on top of those of the earlier."""
    layers = [state.output for state in states if state.output]
    first = states[0] if states else State()
    return replace(first, output=graph.merge(layers, []), history=None)


def diff(lower: State, upper: State) -> State:
    """What `upper` has and `lower` has not."""
    return replace(upper, output=graph.diff(lower.output, upper.output, []), history=None)


def evaluate(*states: State) -> None:
    """Solves states beside each other; raises the first failure."""
    for result in inspect.evaluate([state.output for state in states if state.output]):
        answer(result)


def _annotate(output: graph.Output, name: str, at: Span | None, group: str | None) -> None:
    graph.annotate(output, name, [at] if at else [], attrs(group=group, group_name=group))

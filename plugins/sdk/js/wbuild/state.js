// Build graphs: immutable states of a file system, and what can be done to them.

import * as graph from 'wbuild:frontend/graph@0.1.0';
import * as inspect from 'wbuild:frontend/inspect@0.1.0';
import { answer } from './failure.js';
import { attrs, decode, encode, pairs } from './text.js';

/** Read at most so much of a file unless the caller says otherwise: 16 MiB. */
const FILE_LIMIT = 16 << 20;
const PIECE = 1 << 20;

/**
 * A file system, described. Nothing runs until a result or a question needs it, and every method
 * answers a new state: one state can be gone on from in several ways.
 *
 * What `env`, `dir` and `user` set is where the commands that follow run; it goes into no image by
 * itself, see `ImageConfig`.
 */
export class State {
  constructor(output = undefined, context = {}) {
    /** The node of the graph; undefined for nothing at all. */
    this.output = output;
    this.context = { env: [], dir: '/', user: undefined, platform: undefined, history: [], ...context };
    Object.freeze(this.context);
    Object.freeze(this);
  }

  /** The variables of commands that follow: an object or pairs. */
  env(variables) {
    const added = pairs(variables);
    const env = this.context.env.filter(([name]) => !added.some(([other]) => other === name));
    return new State(this.output, { ...this.context, env: [...env, ...added] });
  }

  /** Where commands that follow run. */
  dir(path) {
    return new State(this.output, { ...this.context, dir: join(this.context.dir, path) });
  }

  /** Who runs commands that follow: `user[:group]`. */
  user(user) {
    return new State(this.output, { ...this.context, user });
  }

  /**
   * After a command: a text for `/bin/sh -c`, or a list of program and arguments.
   * Options: env, dir, user, network, security, hostname, mounts, secretEnv, addHosts, exitCodes,
   * volatileEnv, resources, ulimits, noCache, name, group, at.
   */
  run(command, options = {}) {
    return this.#exec(command, options);
  }

  /**
   * Runs a command now and answers what it did: `{ exitCode, stdout, stderr, state }`, texts of at
   * most `limit` bytes. Any exit code is an answer.
   */
  capture(command, { limit = 65536, ...options } = {}) {
    const state = this.#exec(command, { ...options, limit });
    const outcome = inspect.outcomeOf(state.output);
    const text = (stream) => decode(outcome.read(stream, 0, outcome.size(stream)));
    return { exitCode: outcome.exitCode(), stdout: text('stdout'), stderr: text('stderr'), state };
  }

  /** Copies paths of another state: options are those of `file-op.copy`, in camelCase. */
  copy(from, paths, target, options = {}) {
    const list = [paths].flat();
    return this.files((files) => files.copy(from, list, target, options), {
      name: `copy ${list.join(' ')} ${target}`,
      ...placing(options),
    });
  }

  /** Writes a file: a text or bytes. Options: mode, chown, timestamp. */
  write(path, data, options = {}) {
    return this.files((files) => files.write(path, data, options), { name: `write ${path}`, ...placing(options) });
  }

  /** Makes a directory and its parents. Options: mode, chown, timestamp, parents. */
  mkdir(path, options = {}) {
    return this.files((files) => files.mkdir(path, options), { name: `mkdir ${path}`, ...placing(options) });
  }

  /** Removes a path and what is below it. Options: wildcard, allowMissing. */
  remove(path, options = {}) {
    return this.files((files) => files.remove(path, options), { name: `remove ${path}`, ...placing(options) });
  }

  /** Makes a symbolic link. Options: chown, timestamp. */
  symlink(path, target, options = {}) {
    return this.files((files) => files.symlink(path, target, options), { name: `link ${path}`, ...placing(options) });
  }

  /** Several file actions as one layer: `state.files((files) => { files.mkdir('/a'); … })`. */
  files(work, { name = 'files', at, group, noCache } = {}) {
    const op = new graph.FileOp(this.output);
    if (at) op.mark(at);
    work(new Files(op, this.context.dir));
    return this.#next(graph.file(op), name, { at, group, noCache });
  }

  /** This state with a name, a place and a group for progress and errors. */
  named(name, { at, group } = {}) {
    if (this.output) annotate(this.output, name, at, group);
    return this;
  }

  /** Reads a text file now. Options: limit (bytes; 16 MiB). */
  readText(path, options) {
    return decode(this.readFile(path, options));
  }

  /** Reads a file now. Options: limit (bytes; 16 MiB). What is longer is cut. */
  readFile(path, { limit = FILE_LIMIT } = {}) {
    const pieces = [];
    let size = 0;
    while (size < limit) {
      const piece = inspect.readFile(this.#root('read-file'), path, size, Math.min(PIECE, limit - size));
      if (piece.length === 0) break;
      pieces.push(piece);
      size += piece.length;
    }
    const bytes = new Uint8Array(size);
    let offset = 0;
    for (const piece of pieces) {
      bytes.set(piece, offset);
      offset += piece.length;
    }
    return bytes;
  }

  /** What is at a path: `{ path, kind, size, mode, uid, gid, link }`, or undefined. */
  stat(path) {
    const found = this.output && inspect.stat(this.output, path, []);
    return found ? entry(found) : undefined;
  }

  /** All entries of a directory, sorted. Options: pattern (one or several), recursive. */
  readDir(path, options = {}) {
    const entries = [];
    for (let after; ; after = entries[entries.length - 1].path) {
      const more = inspect.readDir(this.#root('read-dir'), path, after, 10000, attrs(options));
      entries.push(...more.map(entry));
      if (more.length < 10000) return entries;
    }
  }

  #root(what) {
    if (this.output) return this.output;
    throw new Error(`${what}: this state is empty`);
  }

  #exec(command, options) {
    const { dir, user, platform } = this.context;
    const args = Array.isArray(command) ? command : ['/bin/sh', '-c', command];
    const op = new graph.ExecOp(args);
    op.env([...this.context.env, ...pairs(options.env)]);
    op.cwd(options.dir === undefined ? dir : join(dir, options.dir));
    if (options.user ?? user) op.user(options.user ?? user);
    if (platform) op.platform(platform);
    if (options.network) op.network(options.network);
    if (options.security) op.security(options.security);
    if (options.hostname) op.hostname(options.hostname);
    if (options.exitCodes) op.validExitCodes(options.exitCodes);
    if (options.volatileEnv) op.volatileEnv(pairs(options.volatileEnv));
    if (options.resources) op.resources(attrs(options.resources));
    if (options.limit !== undefined) op.capture(options.limit);
    for (const [name, address] of pairs(options.addHosts)) op.addHost(name, address);
    for (const [name, soft, hard] of options.ulimits ?? []) op.ulimit(name, soft, hard ?? soft);
    op.bind('/', this.output, '', 'rw', []);
    for (const mount of options.mounts ?? []) mount(op);
    for (const [name, secret] of Object.entries(options.secretEnv ?? {})) {
      const { id, required = true } = typeof secret === 'string' ? { id: secret } : secret;
      op.secretEnv(name, id, required);
    }
    const shown = options.name ?? (Array.isArray(command) ? command.join(' ') : command);
    return this.#next(graph.exec(op)[0], shown, options);
  }

  #next(output, name, { at, group, noCache }) {
    annotate(output, name, at, group);
    if (noCache) graph.ignoreCache(output);
    const { history } = this.context;
    return new State(output, { ...this.context, history: history && [...history, name] });
  }
}

/** File actions that make one layer, see `State.files`. Relative targets are below the state's `dir`. */
class Files {
  #op;
  #dir;

  constructor(op, dir) {
    this.#op = op;
    this.#dir = dir;
  }

  copy(from, paths, target, options = {}) {
    const keys = { createDest: true, wildcard: true, contentsOnly: true, keepTimes: true, ...plain(options) };
    this.#op.copy(from.output ?? emptyDirectory(), [paths].flat(), join(this.#dir, target), attrs(keys));
    return this;
  }

  write(path, data, options = {}) {
    this.#op.write(join(this.#dir, path), typeof data === 'string' ? encode(data) : data, attrs(plain(options)));
    return this;
  }

  mkdir(path, options = {}) {
    this.#op.mkdir(join(this.#dir, path), attrs({ parents: true, ...plain(options) }));
    return this;
  }

  remove(path, options = {}) {
    this.#op.remove(join(this.#dir, path), attrs(plain(options)));
    return this;
  }

  symlink(path, target, options = {}) {
    this.#op.symlink(join(this.#dir, path), target, attrs(plain(options)));
    return this;
  }
}

/** Mounts of `run`. */
export const mount = {
  /** A directory that outlives builds. Options: id, sharing, from (a state), seedPath, mode, uid, gid, readonly. */
  cache: (target, { id = target, sharing = 'shared', from, ...options } = {}) =>
    (op) => op.cacheDir(target, id, sharing, from?.output, attrs(options)),
  /** Files of another state. Options: path (in it), access ("ro" or "discard"). */
  bind: (target, from, { path = '', access = 'ro' } = {}) =>
    (op) => op.bind(target, from.output, path, access, []),
  /** Options: size, mode, uid, gid. */
  tmpfs: (target, options = {}) => (op) => op.tmpfs(target, attrs(options)),
  /** A secret as a file. Options: id, required, mode, uid, gid. */
  secret: (target, { id = target.split('/').pop(), required = true, ...options } = {}) =>
    (op) => op.secretFile(target, id, required, attrs(options)),
  /** The socket of an ssh agent. Options: id, required, mode, uid, gid. */
  ssh: (target, { id = 'default', required = true, ...options } = {}) =>
    (op) => op.ssh(target, id, required, attrs(options)),
};

/** Nothing: an empty file system. */
export const scratch = (platform) => new State(undefined, { platform });

/** An image as it is, without its config; see `pull` for both. Options: platform, resolve, checksum, store. */
export function image(reference, { platform, ...options } = {}) {
  return new State(graph.image(reference, platform, attrs(options)), { platform });
}

/** A directory of the caller's. Options: include, exclude (lists of patterns, or `{ pattern, at }`), follow. */
export function local(name, { include = [], exclude = [], follow = [] } = {}) {
  const source = new graph.LocalSource(name);
  for (const pattern of [include].flat()) source.include(pattern);
  for (const one of [exclude].flat()) {
    if (typeof one === 'string') source.exclude(one, undefined);
    else source.exclude(one.pattern, one.at);
  }
  for (const path of [follow].flat()) source.follow(path);
  return new State(graph.local(source));
}

/** A repository at a branch, tag or commit. Options are those of `graph.git`, in camelCase. */
export const git = (url, reference = '', options = {}) => new State(graph.git(url, reference, attrs(options)));

/** A tree with one file from a URL. Options: checksum, and those of `graph.http` in camelCase. */
export const http = (url, { checksum, ...options } = {}) => new State(graph.http(url, checksum, attrs(options)));

/** The layers of the later states on top of those of the earlier. */
export function merge(...states) {
  const layers = states.flat().filter((state) => state.output).map((state) => state.output);
  return new State(graph.merge(layers, []), { ...states.flat()[0]?.context, history: undefined });
}

/** What `upper` has and `lower` has not. */
export const diff = (lower, upper) =>
  new State(graph.diff(lower?.output, upper?.output, []), { ...upper?.context, history: undefined });

/** Solves states beside each other; fails with the first failure. */
export function evaluate(...states) {
  inspect.evaluate(states.flat().filter((state) => state.output).map((state) => state.output)).forEach(answer);
}

/** `path` as seen from `dir`; a `/` at the end stays, as it says "into this directory". */
export function join(dir, path) {
  return path.startsWith('/') ? path : `${dir.replace(/\/$/, '')}/${path}`;
}

function annotate(output, name, at, group) {
  graph.annotate(output, name, at ? [at] : [], group ? attrs({ group, groupName: group }) : []);
}

/** An entry whose size is a number: 64 bits are a BigInt in some engines. */
function entry(found) {
  return { ...found, size: Number(found.size) };
}

function emptyDirectory() {
  return graph.file(new graph.FileOp(undefined));
}

/** The options that are about the node and not about the action. */
function placing({ name, at, group, noCache }) {
  return Object.fromEntries(Object.entries({ name, at, group, noCache }).filter(([, value]) => value !== undefined));
}

function plain({ name, at, group, noCache, ...rest }) {
  return rest;
}

// Types of index.js. See the README beside this folder.

/** Ordered pairs, or an object of them. */
export type Pairs = Record<string, string> | [string, string][];

/** Where an image runs. */
export interface Platform {
  os: string;
  architecture: string;
  variant?: string;
  osVersion?: string;
  osFeatures: string[];
}

/** A place in a source, as the host counts (bytes). */
export interface Span { source: number; start: number; end: number }

/** A node of the graph. */
export interface Output { node: number; index: number }

/** Name, place and group of a node, for progress and errors; `noCache` runs it again. */
export interface Placing { name?: string; at?: Span; group?: string; noCache?: boolean }

export interface FailureOptions {
  kind?: 'not-found' | 'denied' | 'invalid' | 'unsupported' | 'unavailable' | 'limit' | 'internal';
  at?: Span;
  help?: string;
  hints?: string[];
  code?: string;
  url?: string;
}

/** What a frontend throws when the build cannot go on. */
export class Failure extends Error {
  constructor(message: string, options?: FailureOptions);
  static of(error: unknown): Failure;
  kind: string;
  /** This failure, shown at a place unless it has one. */
  placed(at?: Span): this;
}

/** A text that failures can point into. */
export class Source {
  constructor(name: string, data: string | Uint8Array, language?: string);
  readonly name: string;
  readonly text: string;
  span(start: number, end?: number): Span;
  find(needle: string, from?: number): Span | undefined;
  lines(): { text: string; number: number; at: Span }[];
}

/** Runs `work`; what fails in it is shown at this place, unless it has one of its own. */
export function at<T>(place: Span | undefined, work: () => T): T;
/** Tells the user something that does not end the build. */
export function warn(message: string, options?: { at?: Span; label?: string; help?: string; code?: string; url?: string }): void;
/** A line for the user. */
export function log(text: string, severity?: 'error' | 'warning' | 'note' | 'help'): void;

/** A mount of `State.run`, made by `mount`. */
export type Mount = (op: unknown) => void;

interface FileModes { mode?: string | number; uid?: number; gid?: number }

export const mount: {
  cache(target: string, options?: FileModes & {
    id?: string; sharing?: 'shared' | 'private' | 'locked'; from?: State; seedPath?: string; readonly?: boolean;
  }): Mount;
  bind(target: string, from: State, options?: { path?: string; access?: 'ro' | 'discard' }): Mount;
  tmpfs(target: string, options?: FileModes & { size?: number }): Mount;
  secret(target: string, options?: FileModes & { id?: string; required?: boolean }): Mount;
  ssh(target: string, options?: FileModes & { id?: string; required?: boolean }): Mount;
};

export interface RunOptions extends Placing {
  env?: Pairs;
  dir?: string;
  user?: string;
  network?: 'sandbox' | 'none' | 'host';
  security?: 'sandbox' | 'insecure' | 'client';
  hostname?: string;
  mounts?: Mount[];
  secretEnv?: Record<string, string | { id: string; required?: boolean }>;
  addHosts?: Pairs;
  exitCodes?: number[];
  volatileEnv?: Pairs;
  resources?: Record<string, string | number>;
  ulimits?: [name: string, soft: number, hard?: number][];
}

export interface CopyOptions extends Placing {
  chown?: string;
  mode?: string;
  createDest?: boolean;
  followLinks?: boolean;
  contentsOnly?: boolean;
  wildcard?: boolean;
  parents?: boolean;
  include?: string[];
  exclude?: string[];
  required?: string[];
  unpack?: 'never' | 'auto' | 'always';
  keepTimes?: boolean;
  keepOwner?: boolean;
  allowMissing?: boolean;
  replace?: boolean;
  timestamp?: number;
}

export interface WriteOptions extends Placing { chown?: string; mode?: string; timestamp?: number }
export interface MkdirOptions extends WriteOptions { parents?: boolean }
export interface RemoveOptions extends Placing { wildcard?: boolean; allowMissing?: boolean }
export interface LinkOptions extends Placing { chown?: string; timestamp?: number }

/** File actions that make one layer. */
export interface Files {
  copy(from: State, paths: string | string[], target: string, options?: CopyOptions): Files;
  write(path: string, data: string | Uint8Array, options?: WriteOptions): Files;
  mkdir(path: string, options?: MkdirOptions): Files;
  remove(path: string, options?: RemoveOptions): Files;
  symlink(path: string, target: string, options?: LinkOptions): Files;
}

export interface Entry {
  path: string;
  kind: 'file' | 'directory' | 'symlink' | 'other';
  size: number;
  mode: number;
  uid: number;
  gid: number;
  link?: string | null;
}

/** A file system, described; immutable. */
export class State {
  readonly output?: Output;
  env(variables: Pairs): State;
  dir(path: string): State;
  user(user: string): State;
  run(command: string | string[], options?: RunOptions): State;
  capture(command: string | string[], options?: RunOptions & { limit?: number }):
    { exitCode: number; stdout: string; stderr: string; state: State };
  copy(from: State, paths: string | string[], target: string, options?: CopyOptions): State;
  write(path: string, data: string | Uint8Array, options?: WriteOptions): State;
  mkdir(path: string, options?: MkdirOptions): State;
  remove(path: string, options?: RemoveOptions): State;
  symlink(path: string, target: string, options?: LinkOptions): State;
  files(work: (files: Files) => void, options?: Placing): State;
  named(name: string, options?: { at?: Span; group?: string }): State;
  readText(path: string, options?: { limit?: number }): string;
  readFile(path: string, options?: { limit?: number }): Uint8Array;
  stat(path: string): Entry | undefined;
  readDir(path: string, options?: { pattern?: string | string[]; recursive?: boolean }): Entry[];
}

export function scratch(platform?: Platform): State;
export function image(reference: string, options?: {
  platform?: Platform; resolve?: 'default' | 'pull' | 'local'; checksum?: string; store?: string;
}): State;
export function local(name: string, options?: {
  include?: string | string[]; exclude?: string | (string | { pattern: string; at?: Span })[]; follow?: string | string[];
}): State;
export function git(url: string, reference?: string, options?: Record<string, string | boolean>): State;
export function http(url: string, options?: Record<string, string | boolean | number>): State;
export function merge(...states: (State | State[])[]): State;
export function diff(lower: State | undefined, upper: State | undefined): State;
export function evaluate(...states: (State | State[])[]): void;
export function join(dir: string, path: string): string;

/** The config of an image; immutable. */
export class ImageConfig {
  static of(platform: Platform): ImageConfig;
  static parse(json: string, what: string): ImageConfig;
  readonly json: Record<string, unknown>;
  readonly variables: [string, string][];
  set(key: string, value: unknown): ImageConfig;
  env(variables: Pairs): ImageConfig;
  label(values: Pairs): ImageConfig;
  expose(...ports: (string | number | (string | number)[])[]): ImageConfig;
  volume(...paths: (string | string[])[]): ImageConfig;
  cmd(command: string | string[]): ImageConfig;
  entrypoint(command: string | string[]): ImageConfig;
  workdir(path: string): ImageConfig;
  user(user: string): ImageConfig;
  stopSignal(signal: string): ImageConfig;
  history(names?: string[]): ImageConfig;
}

/** A state and the config of its image. */
export interface Image { state: State; config: ImageConfig }

export interface PullOptions { platform?: Platform; resolve?: 'default' | 'pull' | 'local'; checksum?: string }
export function pull(reference: string, options?: PullOptions): Image;
export function pullAll(references: string[], options?: PullOptions): Image[];
export function yieldImage(image: Image, options?: {
  name?: string; platform?: Platform; tag?: string[]; pushTag?: string[]; annotation?: string[];
}): void;
export function yieldFiles(state: State, options?: { name?: string; path?: string; platform?: Platform; dest?: string }): void;
export function require(state: State): void;
export function eachPlatform(make: (platform: Platform) => Image): void;

export function definition(language?: string): Source;
export function option(name: string): string | undefined;
export function option(name: string, otherwise: string): string;
export function buildArg(name: string): string | undefined;
export function buildArg(name: string, otherwise: string): string;
export function buildArgs(): Record<string, string>;
export function labels(): Record<string, string>;
export function targets(): string[];
export function targetPlatforms(): Platform[];
export function buildPlatform(): Platform;
export function platformName(platform: Platform): string;
export function hasSecret(id: string): boolean;
export function epoch(): number | undefined;

export interface Context {
  readonly kind: 'local' | 'image' | 'oci-layout' | 'git' | 'http' | 'input';
  readonly identifier: string;
  readonly config?: string;
  readonly state: State;
}
export function namedContext(name: string, platform?: Platform): Context | undefined;
export function contextFiles(options?: {
  name?: string; ignoreFile?: string | null; include?: string | string[]; exclude?: string | (string | { pattern: string; at?: Span })[];
}): State;
export function ignorePatterns(context: string, file: string): { pattern: string; at: Span }[];
export function parseIgnore(source: Source): { pattern: string; at: Span }[];

export function encode(text: string): Uint8Array;
export function decode(bytes: Uint8Array): string;

/** The export of a frontend: `export const build = frontend(() => { … });`. */
export function frontend(work: () => void): { build(): void };

export interface Target { name: string; summary?: string; isDefault?: boolean; at?: Span }
export interface Parameter {
  kind: 'arg' | 'secret' | 'ssh' | 'cache-mount'; name: string; summary?: string; value?: string; required?: boolean; at?: Span;
}
/** The optional export for questions: `export const describe = describer({ … });`. */
export function describer(answers?: {
  targets?: () => Target[];
  parameters?: (target?: string) => Parameter[];
  check?: (target?: string) => void;
  methods?: () => { name: string; summary?: string }[];
  call?: (method: string, target: string | undefined, args: Record<string, string>) => string;
}): object;

// What the caller asks for: definition, options, platforms, contexts. Every question is remembered
// by the host and decides whether the frontend has to run again, so nothing is asked beforehand.

import * as request from 'wbuild:frontend/request@0.1.0';
import { Source } from './failure.js';
import { State, git, http, image, local } from './state.js';

/** The definition file, as a source that failures can point into. */
export function definition(language = '') {
  const { name, data } = request.definition();
  return new Source(name, data, language);
}

/** An option of the caller (`--opt name=value`), or `otherwise`. */
export const option = (name, otherwise = undefined) => request.opt(name) ?? otherwise;

/** A build argument, or `otherwise`. */
export const buildArg = (name, otherwise = undefined) => option(`build-arg:${name}`, otherwise);

/** All build arguments, as an object. */
export const buildArgs = () => Object.fromEntries(request.opts('build-arg:'));

/** Labels that the caller wants on the image, as an object. */
export const labels = () => Object.fromEntries(request.opts('label:'));

/** What is to be built, by name; none is the default. */
export const targets = () => request.targets();

/** What to build for; at least one. */
export const targetPlatforms = () => request.targetPlatforms();

/** Where steps run natively. */
export const buildPlatform = () => request.buildPlatform();

/** `linux/arm/v7`. */
export const platformName = ({ os, architecture, variant }) => [os, architecture, variant].filter(Boolean).join('/');

/** Does the caller offer this secret? */
export const hasSecret = (id) => request.hasSecret(id);

/** SOURCE_DATE_EPOCH, seconds since 1970, if it is pinned. */
export function epoch() {
  const seconds = request.epoch() ?? undefined;
  // A BigInt in some engines.
  return seconds === undefined ? undefined : Number(seconds);
}

/**
 * A context that the caller gave by name: `{ kind, identifier, attrs, state, config }`, or
 * undefined. The state is made when it is first looked at.
 */
export function namedContext(name, platform = undefined) {
  const found = request.context(name, platform);
  if (!found) return undefined;
  const [kind, identifier, attrs] = [found.kind(), found.identifier(), found.attrs()];
  return {
    kind,
    identifier,
    attrs,
    config: found.config() ?? undefined,
    get state() {
      return contextState(found, kind, identifier, attrs, platform, {});
    },
  };
}

/**
 * The files of the main context, or of another one by its name. What `.dockerignore` in it (or
 * another file: `ignoreFile`) names is left out. Options: include, exclude, ignoreFile (null: none).
 */
export function contextFiles({ name = 'context', ignoreFile = '.dockerignore', include = [], exclude = [] } = {}) {
  const found = request.context(name, undefined);
  const kind = found?.kind() ?? 'local';
  const identifier = found?.identifier() ?? name;
  if (kind !== 'local') return contextState(found, kind, identifier, found.attrs(), undefined);
  const ignored = ignoreFile ? ignorePatterns(identifier, ignoreFile) : [];
  return local(identifier, { include, exclude: [...ignored, ...[exclude].flat()] }).named('context');
}

/** The patterns of an ignore file in a local context, with their places; none if there is no file. */
export function ignorePatterns(context, file) {
  const tree = local(context, { include: [file] }).named(`ignore file ${file}`);
  if (tree.stat(file) === undefined) return [];
  return parseIgnore(new Source(file, tree.readFile(file), 'dockerignore'));
}

/** The patterns of an ignore file: `[{ pattern, at }]`. */
export function parseIgnore(source) {
  const patterns = [];
  for (const { text, at } of source.lines()) {
    const line = text.replace(/^\ufeff/, '');
    const trimmed = line.trim();
    if (line.startsWith('#') || trimmed === '') continue;
    const negated = trimmed.startsWith('!');
    const cleaned = clean(negated ? trimmed.slice(1).trim() : trimmed);
    if (cleaned !== '.') patterns.push({ pattern: (negated ? '!' : '') + cleaned, at });
  }
  return patterns;
}

/** A pattern without empty parts, `.` and `..`, and without a `/` in front. */
function clean(pattern) {
  if (pattern === '') return '';
  const parts = [];
  for (const part of pattern.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..' && parts.length > 0 && parts[parts.length - 1] !== '..') parts.pop();
    else if (part !== '..' || !pattern.startsWith('/')) parts.push(part);
  }
  return parts.join('/') || (pattern.startsWith('/') ? '/' : '.');
}

function contextState(found, kind, identifier, attrs, platform) {
  const options = Object.fromEntries(attrs);
  switch (kind) {
    case 'input': return new State(found.root() ?? undefined);
    case 'local': return local(identifier);
    case 'git': return git(identifier, '', options);
    case 'http': return http(identifier, options);
    default: return image(identifier, { platform, ...options });
  }
}


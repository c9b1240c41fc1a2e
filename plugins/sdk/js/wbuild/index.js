// wbuild for frontends in JavaScript. See the README beside this folder.

import { log as line } from 'wbuild:types/log@0.1.0';
import { Failure } from './failure.js';

export { Failure, Source, at, warn } from './failure.js';
export { State, diff, evaluate, git, http, image, join, local, merge, mount, scratch } from './state.js';
export { ImageConfig, eachPlatform, pull, pullAll, require, yieldFiles, yieldImage } from './image.js';
export {
  buildArg, buildArgs, buildPlatform, contextFiles, definition, epoch, hasSecret, ignorePatterns, labels,
  namedContext, option, parseIgnore, platformName, targetPlatforms, targets,
} from './request.js';
export { decode, encode } from './text.js';

/**
 * The export of a frontend: `export const build = frontend(() => { … });`. What `work` throws
 * becomes the failure of the build.
 */
export function frontend(work) {
  return { build: guarded(work) };
}

/**
 * The optional export for questions: `export const describe = describer({ targets, parameters,
 * check, methods, call });` in a component of the world `frontend-describe`. What is left out has
 * the empty answer.
 */
export function describer({
  targets = () => [],
  parameters = () => [],
  check = () => {},
  methods = () => [],
  call = (method) => { throw new Failure(`there is no method ${method}`, { kind: 'unsupported' }); },
} = {}) {
  const optional = (value) => value ?? undefined;
  return {
    targets: guarded(() => targets().map((one) => ({ summary: '', isDefault: false, attrs: [], ...one }))),
    parameters: guarded((target) =>
      parameters(optional(target)).map((one) => ({ summary: '', required: false, attrs: [], ...one }))),
    check: guarded((target) => { check(optional(target)); }),
    methods: guarded(() => methods().map((one) => ({ summary: '', attrs: [], ...one }))),
    call: guarded((method, target, args) => call(method, optional(target), Object.fromEntries(args))),
  };
}

/** A line for the user; severity "error", "warning", "note" or "help". */
export function log(text, severity = 'note') {
  line(severity, String(text));
}

function guarded(work) {
  return (...args) => {
    try {
      return work(...args);
    } catch (error) {
      throw Failure.of(error).record();
    }
  };
}

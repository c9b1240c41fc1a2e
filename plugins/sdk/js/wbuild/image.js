// Images: their configs, those that builds begin with, and those that builds yield.

import * as inspect from 'wbuild:frontend/inspect@0.1.0';
import * as results from 'wbuild:frontend/results@0.1.0';
import { Failure, answer } from './failure.js';
import { labels, namedContext, targetPlatforms } from './request.js';
import { State, image } from './state.js';
import { attrs, pairs } from './text.js';

/** The config of an image (OCI image specification). Immutable: every method answers a new one. */
export class ImageConfig {
  constructor(json) {
    this.json = json;
    Object.freeze(this);
  }

  /** An empty one for a platform. */
  static of({ os, architecture, variant }) {
    return new ImageConfig({ architecture, os, ...(variant ? { variant } : {}), config: {}, history: [] });
  }

  /** From the JSON of an image; the failure says what it was of. */
  static parse(text, what) {
    let json;
    try {
      json = JSON.parse(text);
    } catch (error) {
      throw new Failure(`the config of ${what} is not JSON: ${error.message}`);
    }
    const inner = json?.config ?? {};
    if (typeof json !== 'object' || json === null || typeof inner !== 'object') {
      throw new Failure(`the config of ${what} is no OCI image config`);
    }
    const { rootfs, ...rest } = json; // The host lists the layers itself.
    return new ImageConfig({ ...rest, config: inner });
  }

  /** The variables, as pairs. */
  get variables() {
    return (this.json.config.Env ?? []).map((one) => [one.split('=', 1)[0], one.slice(one.indexOf('=') + 1)]);
  }

  /** One key of the inner config, e.g. `set('StopSignal', 'SIGINT')`; undefined removes it. */
  set(key, value) {
    const { [key]: _, ...rest } = this.json.config;
    return new ImageConfig({ ...this.json, config: value === undefined ? rest : { ...rest, [key]: value } });
  }

  env(variables) {
    const added = pairs(variables);
    const kept = this.variables.filter(([name]) => !added.some(([other]) => other === name));
    return this.set('Env', [...kept, ...added].map(([name, value]) => `${name}=${value}`));
  }

  label(values) {
    const all = { ...this.json.config.Labels, ...Object.fromEntries(pairs(values)) };
    return this.set('Labels', Object.keys(all).length ? all : undefined);
  }

  /** A port ("80", "53/udp") or several. */
  expose(...ports) {
    const added = ports.flat().map((port) => [String(port).includes('/') ? String(port) : `${port}/tcp`, {}]);
    return this.set('ExposedPorts', { ...this.json.config.ExposedPorts, ...Object.fromEntries(added) });
  }

  volume(...paths) {
    return this.set('Volumes', { ...this.json.config.Volumes, ...Object.fromEntries(paths.flat().map((path) => [path, {}])) });
  }

  /** A list, or a text for the shell. */
  cmd(command) {
    return this.set('Cmd', shell(command));
  }

  /** A list, or a text for the shell. The command of the base goes. */
  entrypoint(command) {
    return this.set('Entrypoint', shell(command)).set('Cmd', undefined);
  }

  workdir(path) {
    return this.set('WorkingDir', path);
  }

  user(user) {
    return this.set('User', user);
  }

  stopSignal(signal) {
    return this.set('StopSignal', signal);
  }

  /** With the names of a state's layers as history; unchanged if they are not known. */
  history(names) {
    if (!names || names.length === 0) return this;
    const added = names.map((name) => ({ created_by: name }));
    return new ImageConfig({ ...this.json, history: [...(this.json.history ?? []), ...added] });
  }
}

const shell = (command) => (Array.isArray(command) ? command : ['/bin/sh', '-c', command]);

/**
 * An image to begin with: `{ state, config }`. The state has its variables, directory and user. A
 * context of this name takes its place, as in a Dockerfile. "scratch" is nothing. Options: platform
 * (the build's first target platform if absent), resolve, checksum.
 */
export function pull(reference, options = {}) {
  return pullAll([reference], options)[0];
}

/** Several images beside each other. */
export function pullAll(references, { platform = targetPlatforms()[0], ...options } = {}) {
  const answers = new Array(references.length);
  const wanted = [];
  references.forEach((reference, index) => {
    if (reference === 'scratch') {
      answers[index] = { state: new State(undefined, { platform }), config: ImageConfig.of(platform) };
      return;
    }
    const context = namedContext(reference, platform);
    if (context && context.kind === 'input') {
      const config = context.config ? ImageConfig.parse(context.config, reference) : ImageConfig.of(platform);
      answers[index] = based(context.state.output, config, platform);
    } else if (context && context.kind !== 'image' && context.kind !== 'oci-layout') {
      answers[index] = based(context.state.output, ImageConfig.of(platform), platform);
    } else {
      const asked = { reference: context?.identifier ?? reference, platform, attrs: context?.attrs ?? attrs(options) };
      wanted.push({ index, asked, shown: reference });
    }
  });
  const found = wanted.length === 0 ? [] : inspect.resolveImages(wanted.map(({ asked }) => asked));
  found.forEach((result, number) => {
    const { index, asked, shown } = wanted[number];
    const info = answer(result);
    const { output } = image(info.reference, { platform, ...Object.fromEntries(asked.attrs) }).named(`image ${shown}`);
    answers[index] = based(output, ImageConfig.parse(info.config, shown), platform);
  });
  return answers;
}

function based(output, config, platform) {
  const { WorkingDir, User } = config.json.config;
  const context = { env: config.variables, dir: WorkingDir || '/', user: User || undefined, platform };
  return { state: new State(output, context), config };
}

/**
 * Yields an image. `name` "" is the image that names of the caller's are for. Labels of the caller
 * (`--label`) are set. Options: platform, tag, pushTag, annotation.
 */
export function yieldImage({ state, config }, { name = '', platform = targetPlatforms()[0], ...options } = {}) {
  const { json } = config.label(labels()).history(state.context.history);
  results.image(name, platform, state.output, JSON.stringify(json), attrs(options));
}

/** Yields files. Options: name, path (in the state), platform, dest. */
export function yieldFiles(state, { name = '', path = '/', platform, ...options } = {}) {
  results.files(name, platform, state.output, path, attrs(options));
}

/** Yields what must succeed though nothing of it is kept, a test for instance. */
export function require(state) {
  results.require(state.output);
}

/** Yields the image that `make(platform)` answers, for every target platform. */
export function eachPlatform(make) {
  for (const platform of targetPlatforms()) yieldImage(make(platform), { platform });
}

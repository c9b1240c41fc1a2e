// What package.json says, checked, with the places it says it at.

import { Failure } from './wbuild/index.js';

/** Keys of "wbuild" in package.json; the text says what they want. */
const SETTINGS = {
  base: 'a reference to an image with Node.js in it',
  runtime: 'a reference to an image with Node.js in it',
  user: 'a text',
  command: 'a text or a list of texts',
  ports: 'a list of ports',
  env: 'an object of texts',
  packages: 'a list of names of Debian packages',
};

export class Project {
  constructor(source) {
    this.source = source;
    try {
      this.json = JSON.parse(source.text);
    } catch (error) {
      throw new Failure(`${source.name} is not JSON: ${error.message}`, { at: placeOf(source, error) });
    }
    if (typeof this.json !== 'object' || this.json === null || Array.isArray(this.json)) {
      this.fail('is no object', source.span(0, source.text.length));
    }
    for (const key of ['scripts', 'dependencies', 'devDependencies', 'optionalDependencies', 'engines']) {
      for (const [name, value] of Object.entries(this.object(this.json, key))) {
        if (typeof value !== 'string') this.fail(`${key}.${name} is no text`, this.at(key, name));
      }
    }
    this.settings = this.object(this.json, 'wbuild');
    for (const [key, value] of Object.entries(this.settings)) {
      if (!(key in SETTINGS)) {
        throw new Failure(`wbuild.${key} is no setting`, {
          at: this.at('wbuild', key), help: `there are ${Object.keys(SETTINGS).join(', ')}`,
        });
      }
      if (!fits(key, value)) this.fail(`wbuild.${key} is not ${SETTINGS[key]}`, this.at('wbuild', key));
    }
  }

  get scripts() {
    return this.object(this.json, 'scripts');
  }

  get has() {
    const any = (key) => Object.keys(this.object(this.json, key)).length > 0;
    const dev = any('devDependencies');
    return { dev, any: dev || any('dependencies') || any('optionalDependencies') || this.workspaces };
  }

  get workspaces() {
    return this.json.workspaces !== undefined;
  }

  /** Directories and archives beside it that are dependencies (`file:…`). */
  get local() {
    const all = ['dependencies', 'devDependencies', 'optionalDependencies'].flatMap((key) => Object.values(this.object(this.json, key)));
    return all.filter((value) => /^(file|link):/.test(value)).map((value) => value.replace(/^(file|link):(\.\/)?/, ''));
  }

  /** What the image runs, as a list. */
  command() {
    const { command } = this.settings;
    if (command) return Array.isArray(command) ? command : ['/bin/sh', '-c', command];
    const { start } = this.scripts;
    if (start !== undefined) {
      // Directly, so that signals reach it; the shell only for what needs one.
      const words = start.trim().split(/\s+/);
      return words[0] === 'node' && !/[^\w\s./=:@,-]/.test(start) ? words : ['npm', 'run', '--silent', 'start'];
    }
    if (typeof this.json.main === 'string') return ['node', this.json.main];
    throw new Failure('it does not say how the program is started', {
      at: this.at('scripts') ?? this.source.span(0, 1),
      help: 'add scripts.start, main, or wbuild.command',
    });
  }

  labels() {
    const { name, version, description, license, homepage } = this.json;
    const all = { title: name, version, description, licenses: license, url: homepage };
    const texts = Object.entries(all).filter(([, value]) => typeof value === 'string' && value !== '');
    return Object.fromEntries(texts.map(([key, value]) => [`org.opencontainers.image.${key}`, value]));
  }

  /** The place of a key, and of one inside its object. */
  at(...keys) {
    let [from, at] = [0, undefined];
    for (const key of keys) {
      const quoted = JSON.stringify(key);
      const found = this.source.text.indexOf(quoted, from);
      if (found < 0) break;
      at = this.source.span(found, found + quoted.length);
      from = found + quoted.length;
    }
    return at;
  }

  fail(message, at) {
    throw new Failure(`${this.source.name}: ${message}`, { at });
  }

  object(holder, key) {
    const value = holder[key];
    if (value === undefined) return {};
    if (typeof value !== 'object' || value === null || Array.isArray(value)) this.fail(`${key} is no object`, this.at(key));
    return value;
  }
}

function fits(key, value) {
  const text = (one) => typeof one === 'string' && one !== '';
  switch (key) {
    case 'command': return text(value) || (Array.isArray(value) && value.length > 0 && value.every(text));
    case 'ports': return Array.isArray(value) && value.every((one) => /^\d{1,5}(\/(tcp|udp|sctp))?$/.test(String(one)));
    case 'packages': return Array.isArray(value) && value.every((one) => /^[a-z0-9][a-z0-9+.:=~-]*$/.test(one));
    case 'env': return typeof value === 'object' && value !== null && Object.values(value).every((one) => typeof one === 'string');
    default: return text(value);
  }
}

/** Where JSON stops being JSON, if the engine says so. */
function placeOf(source, error) {
  const line = Number(error.lineNumber ?? String(error.stack ?? '').match(/:(\d+)/)?.[1]);
  return source.lines()[line - 1]?.at ?? source.span(0, source.text.length);
}

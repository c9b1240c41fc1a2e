// Failures, and places in the sources that they point at.

import { addSource, report } from 'wbuild:frontend/diagnostics@0.1.0';
import { decode, encode } from './text.js';

/**
 * What a frontend throws when the build cannot go on. Anything else that is thrown is shown as a
 * bug of the frontend.
 */
export class Failure extends Error {
  constructor(message, { kind = 'invalid', at, help, hints = [], code, url } = {}) {
    super(message);
    this.name = 'Failure';
    this.kind = kind;
    this.retryable = false;
    this.diagnostics = at ? [diagnostic('error', message, { at, help, code, url })] : [];
    this.attrs = hints.map((hint) => ['hint', hint]);
    if (!at && help) this.attrs.push(['hint', help]);
  }

  /** The failure of whatever was thrown: ours, one that the host answered, or a bug. */
  static of(error) {
    if (error instanceof Failure) return error;
    const record = error?.payload ?? error;
    const failure = Object.create(Failure.prototype);
    const isRecord = typeof record?.kind === 'string' && Array.isArray(record.diagnostics);
    const stack = typeof error?.stack === 'string' ? error.stack.trim().split('\n').map((line) => line.trim()) : [];
    return Object.assign(failure, isRecord ? record : {
      kind: 'internal',
      message: `the frontend failed: ${error?.name ?? 'error'}: ${error?.message ?? String(error)}`,
      retryable: false,
      diagnostics: [],
      attrs: stack.slice(0, 8).map((line) => ['cause', line]),
    });
  }

  /** This failure, shown at a place unless it has one. */
  placed(at) {
    if (this.diagnostics.length === 0 && at) this.diagnostics = [diagnostic('error', this.message, { at })];
    return this;
  }

  /** The record that crosses the border. */
  record() {
    const { kind, message, retryable, diagnostics, attrs } = this;
    return { kind, message, retryable, diagnostics, attrs };
  }
}

/** Runs `work`; what fails in it is shown at this place, unless it has one of its own. */
export function at(place, work) {
  try {
    return work();
  } catch (error) {
    throw Failure.of(error).placed(place);
  }
}

/** The answer of a call that has one for each question: the value, or the failure thrown. */
export function answer(result) {
  if (result.tag === 'ok') return result.val;
  throw Failure.of(result.val);
}

/** Tells the user something that does not end the build. */
export function warn(message, options = {}) {
  report(diagnostic('warning', message, options));
}

function diagnostic(severity, message, { at, label = '', help, code, url }) {
  const labels = at ? [{ at, text: label, primary: true }] : [];
  return { severity, code, message, labels, help, url, attrs: [] };
}

/** A text that failures can point into. Places are indexes of `text`, as JavaScript counts. */
export class Source {
  #id;
  #plain;

  constructor(name, data, language = '') {
    const bytes = typeof data === 'string' ? encode(data) : data;
    this.name = name;
    this.text = decode(bytes);
    this.#plain = bytes.length === this.text.length;
    this.#id = addSource(name, language, bytes);
  }

  /** The place of `text.slice(start, end)`. */
  span(start, end = start) {
    return { source: this.#id, start: this.#offset(start), end: this.#offset(Math.max(start, end)) };
  }

  /** The place of the first `needle` at or after `from`; undefined if there is none. */
  find(needle, from = 0) {
    const start = this.text.indexOf(needle, from);
    return start < 0 ? undefined : this.span(start, start + needle.length);
  }

  /** The lines with their places: `[{ text, number, at }]`, without line breaks. */
  lines() {
    const lines = [];
    let start = 0;
    for (const text of this.text.split('\n')) {
      const shown = text.endsWith('\r') ? text.slice(0, -1) : text;
      lines.push({ text: shown, number: lines.length + 1, at: this.span(start, start + shown.length) });
      start += text.length + 1;
    }
    return lines;
  }

  #offset(index) {
    return this.#plain ? index : encode(this.text.slice(0, index)).length;
  }
}

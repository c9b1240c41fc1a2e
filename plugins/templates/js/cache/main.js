// A cache backend: it remembers which layers there are for which keys. The host computes the keys,
// checks what is answered, and moves the layers.
//
// This one keeps its records on this machine, in a bucket of its own: one entry for each key, a JSON
// list of records, the newest first.

import { Bucket } from 'wbuild:cache/kv@0.1.0';
import { open as present } from 'wbuild:cache/blobs@0.1.0';

/** Most records that are kept for a key. */
const RECORDS = 8;

let bucket;
let writable = false;

const failure = (kind, message) => ({ kind, message, retryable: false, diagnostics: [], attrs: [] });

// Keys are texts of ASCII, records JSON; QuickJS has no TextEncoder.
const bytes = (text) => Uint8Array.from(unescape(encodeURIComponent(text)), (c) => c.charCodeAt(0));
const text = (data) => decodeURIComponent(escape(String.fromCharCode(...data)));

/** What is opened for reading is not changed. */
function mayWrite(call) {
  if (!writable) throw failure('denied', `${call} on a backend that was opened for reading`);
}

/** The records of stored bytes; what cannot be read is a miss. */
function records(data) {
  if (!data) return [];
  try {
    return JSON.parse(text(data));
  } catch {
    return [];
  }
}

export const backend = {
  /** `config` is what the user wrote: a key that is not known is an error, and no silent one. */
  open(mode, config) {
    for (const [key] of config) {
      if (!key.startsWith('x-')) throw failure('unsupported', `@NAME@ has no option ${key}`);
    }
    writable = mode === 'write';
    bucket = Bucket.open('records');
  },

  /** One list for each key, in order. A record must have the key that it is answered for. */
  find(keys) {
    const found = bucket.getMany(keys.map(bytes));
    return found.map((data, index) => records(data).filter((record) => record.keys.includes(keys[index])));
  },

  /** Layers are on this machine or nowhere. */
  fetch(layers) {
    return layers.map((layer) => {
      const blob = present(layer.digest);
      return blob ? { tag: 'ok', val: blob } : { tag: 'err', val: failure('gone', `${layer.digest} is not here any more`) };
    });
  },

  save(entries) {
    mayWrite('save');
    const changes = new Map();
    for (const entry of entries) {
      for (const key of entry.keys) {
        const old = changes.get(key) ?? records(bucket.getMany([bytes(key)])[0]);
        const others = old.filter((record) => record.id !== entry.id || JSON.stringify(record.attrs) !== JSON.stringify(entry.attrs));
        // Newest first; of two made at one time the one saved later.
        const newest = [entry, ...others].sort((a, b) => (a.created < b.created ? 1 : a.created > b.created ? -1 : 0));
        changes.set(key, newest.slice(0, RECORDS));
      }
    }
    bucket.apply([...changes].map(([key, list]) => [bytes(key), bytes(JSON.stringify(list))]));
  },

  /** Nothing has to be moved: what is here is there. */
  push(layers) {
    return backend.fetch(layers).map((answer) => (answer.tag === 'ok' ? { tag: 'ok' } : answer));
  },

  commit() {
    mayWrite('commit');
    return [];
  },

  /** Forgets everything but what is to be kept or is young enough. */
  prune(options) {
    mayWrite('prune');
    const keep = new Set(options.filter(([key]) => key === 'keep').map(([, value]) => value));
    const before = Number(options.find(([key]) => key === 'older-than')?.[1] ?? NaN);
    const removed = new Set();
    const kept = new Set();
    const stays = (record) => keep.has(record.id) || (Number.isNaN(before) ? keep.size === 0 : record.created >= before);
    for (let after; ; ) {
      const page = bucket.scan(new Uint8Array(), after, 1000);
      if (page.length === 0) break;
      const changes = [];
      for (const [key, data] of page) {
        const all = records(data);
        const left = all.filter(stays);
        all.forEach((record) => (left.includes(record) ? kept : removed).add(record.id));
        if (left.length < all.length || all.length === 0) changes.push([key, left.length > 0 ? bytes(JSON.stringify(left)) : undefined]);
      }
      bucket.apply(changes);
      after = page[page.length - 1][0];
    }
    return [['removed', String(removed.size)], ['kept', String(kept.size)]];
  },
};

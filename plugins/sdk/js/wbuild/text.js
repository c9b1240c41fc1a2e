// UTF-8 and attributes: the forms in which texts and options cross the border.
//
// QuickJS has neither TextEncoder nor TextDecoder, so both directions are here.

/** The UTF-8 of a text. Half of a surrogate pair becomes U+FFFD. */
export function encode(text) {
  const bytes = [];
  for (const character of text) {
    let code = character.codePointAt(0);
    if (code >= 0xd800 && code <= 0xdfff) code = 0xfffd;
    if (code < 0x80) bytes.push(code);
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
    else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    else bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
  }
  return Uint8Array.from(bytes);
}

/** The text of UTF-8 bytes. A byte that is none becomes U+FFFD, one for each. */
export function decode(bytes) {
  const parts = [];
  let codes = [];
  for (let at = 0; at < bytes.length; ) {
    const [code, size] = character(bytes, at);
    codes.push(code);
    at += size;
    if (codes.length === 4096) {
      parts.push(String.fromCodePoint(...codes));
      codes = [];
    }
  }
  parts.push(String.fromCodePoint(...codes));
  return parts.join('');
}

/** The code point at a place and its length; [0xfffd, 1] for what is no UTF-8. */
function character(bytes, at) {
  const first = bytes[at];
  if (first < 0x80) return [first, 1];
  const size = first >= 0xc2 && first < 0xe0 ? 2 : first >= 0xe0 && first < 0xf0 ? 3 : first >= 0xf0 && first < 0xf5 ? 4 : 0;
  if (size === 0 || at + size > bytes.length) return [0xfffd, 1];
  let code = first & (0xff >> (size + 1));
  for (let next = at + 1; next < at + size; next++) {
    if ((bytes[next] & 0xc0) !== 0x80) return [0xfffd, 1];
    code = (code << 6) | (bytes[next] & 63);
  }
  // Too long for its value, a surrogate, or past the last code point.
  const least = [0, 0, 0x80, 0x800, 0x10000][size];
  if (code < least || (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff) return [0xfffd, 1];
  return [code, size];
}

/** `{ keepTimes: true, exclude: ['a', 'b'] }` as the host wants it. What is undefined is left out. */
export function attrs(options = {}) {
  const list = [];
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue;
    const key = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    for (const one of Array.isArray(value) ? value : [value]) list.push([key, String(one)]);
  }
  return list;
}

/** An object or a list of pairs, as a list of pairs. */
export function pairs(value = []) {
  const list = Array.isArray(value) ? value : Object.entries(value);
  return list.map(([name, text]) => [String(name), String(text)]);
}

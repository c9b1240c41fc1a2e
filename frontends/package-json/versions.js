// Ranges of versions as package.json has them ("engines"), as far as choosing a base image needs it.

/** Releases to choose from, the preferred first: those with long-term support, then the others. */
const RELEASES = [24, 22, 20, 26, 18, 16, 25, 23, 21, 19];

const PARTS = /^[v=\s]*(\d+|[xX*])(?:\.(\d+|[xX*]))?(?:\.(\d+|[xX*]))?(?:[-+][0-9A-Za-z.+-]*)?$/;
const END = [Infinity, 0, 0];

/**
 * The tag of a node image for this range: "22", or "20.11.1" if no other will do. Undefined if the
 * range cannot be read or no release is in it.
 */
export function nodeTag(range) {
  const parts = intervals(range);
  if (!parts) return undefined;
  const exact = parts.length === 1 && compare(next(parts[0].from, 2), parts[0].to) >= 0;
  if (exact && parts[0].from[0] > 0) return parts[0].from.join('.');
  const whole = (major) => parts.some(({ from, to }) => compare(from, [major, 0, 0]) <= 0 && compare(to, [major + 1, 0, 0]) >= 0);
  // The newest of a release is what its tag means, so that one must be in the range.
  const open = (major) => parts.some(({ to, from }) => compare(from, [major + 1, 0, 0]) < 0 && compare(to, [major + 1, 0, 0]) >= 0);
  const major = RELEASES.find(whole) ?? RELEASES.find(open);
  if (major !== undefined) return String(major);
  // Only some versions of a release: the first of them, or the last.
  const first = parts.find(({ from }) => RELEASES.includes(from[0]));
  if (first) return first.from.slice(0, 2).join('.');
  const last = parts.find(({ to }) => RELEASES.includes(to[0]) && to[1] > 0);
  return last && `${last.to[0]}.${last.to[1] - 1}`;
}

/** `>=18 <21 || 22.x` as intervals `[{ from, to }]` (from included, to not); undefined if it is none. */
export function intervals(range) {
  const parts = range.split('||').map((part) => interval(part.trim()));
  return parts.some((part) => part === undefined) ? undefined : parts.filter(({ from, to }) => compare(from, to) < 0);
}

function interval(text) {
  const hyphen = text.match(/^(\S+)\s+-\s+(\S+)$/);
  const comparators = hyphen ? [`>=${hyphen[1]}`, `<=${hyphen[2]}`] : text.replace(/([<>=~^])\s+/g, '$1').split(/\s+/);
  let [from, to] = [[0, 0, 0], END];
  for (const comparator of comparators) {
    const one = bounds(comparator);
    if (!one) return undefined;
    if (compare(one.from, from) > 0) from = one.from;
    if (compare(one.to, to) < 0) to = one.to;
  }
  return { from, to };
}

function bounds(comparator) {
  if (comparator === '' || comparator === 'latest' || comparator === 'lts/*' || comparator === 'node') return { from: [0, 0, 0], to: END };
  const [, sign, rest] = comparator.match(/^(>=|<=|>|<|\^|~|=|)(.*)$/);
  const parts = rest.match(PARTS);
  if (!parts) return undefined;
  const numbers = parts.slice(1).map((part) => (part === undefined || /[xX*]/.test(part) ? undefined : Number(part)));
  const given = numbers.indexOf(undefined) < 0 ? 3 : numbers.indexOf(undefined);
  const low = numbers.map((number, index) => (index < given ? number : 0));
  if (given === 0) return { from: [0, 0, 0], to: END };
  switch (sign) {
    case '>=': return { from: low, to: END };
    case '<': return { from: [0, 0, 0], to: low };
    case '>': return { from: next(low, given - 1), to: END };
    case '<=': return { from: [0, 0, 0], to: next(low, given - 1) };
    case '~': return { from: low, to: next(low, Math.min(given - 1, 1)) };
    case '^': return { from: low, to: next(low, Math.min(given - 1, Math.max(0, low.findIndex((number) => number > 0)))) };
    default: return { from: low, to: next(low, given - 1) };
  }
}

/** The least version above all that agree in the parts up to `index`. */
function next(version, index) {
  return version.map((number, at) => (at < index ? number : at === index ? number + 1 : 0));
}

function compare(a, b) {
  for (let at = 0; at < 3; at++) if (a[at] !== b[at]) return a[at] < b[at] ? -1 : 1;
  return 0;
}

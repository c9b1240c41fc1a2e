// A frontend for the larger engine that asks its system for everything; what comes of it are lines of
// the log.

import { contextFiles, definition, eachPlatform, epoch, frontend, log, pull } from './wbuild/index.js';

function ask(word, rest) {
  switch (word) {
    case 'time':
      return [Date.now(), new Date().toISOString()];
    case 'epoch':
      return epoch();
    case 'clock':
      return performance.now() >= performance.now();
    case 'random':
      return [Math.random(), crypto.randomUUID()];
    case 'text':
      return new TextDecoder().decode(new TextEncoder().encode(rest));
    case 'console':
      console.log(rest);
      return console.error(rest);
    case 'size':
      return contextFiles({ ignoreFile: null }).stat(rest).size + 1;
    case 'sizes':
      return contextFiles({ ignoreFile: null, include: [rest] }).readDir('/').map(({ size }) => size);
    case 'fetch':
      return fetch(rest);
    default:
      throw new TypeError(rest);
  }
}

export const build = frontend(() => {
  for (const { text } of definition('asks').lines()) {
    const [word, ...rest] = text.split(' ');
    if (word) log(`${word}: ${JSON.stringify(ask(word, rest.join(' ')))}`);
  }
  eachPlatform((platform) => {
    const { state, config } = pull('scratch', { platform });
    return { state: state.write('/x', 'y'), config };
  });
});

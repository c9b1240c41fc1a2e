// A frontend: it reads a definition and describes the image that is to be made. Nothing runs here;
// wbuild runs what the result needs, and remembers it.
//
// The definition is lines of a word and a text, see example/definition.

import { Failure, at, contextFiles, definition, eachPlatform, frontend, pull } from './wbuild/index.js';

export const build = frontend(() => {
  const source = definition('@NAME@');
  const lines = parse(source);
  // Once for every platform that the user wants.
  eachPlatform((platform) => {
    let { state, config } = pull('scratch', { platform });
    for (const line of lines) {
      // What fails in here, now or when the step runs, is shown at the line.
      at(line.at, () => {
        switch (line.word) {
          case 'base':
            ({ state, config } = pull(line.text, { platform }));
            break;
          case 'run':
            state = state.run(line.text, { at: line.at });
            break;
          case 'files':
            state = state.copy(contextFiles(), line.text, '/app/', { at: line.at });
            break;
          case 'start':
            config = config.workdir('/app').cmd(line.text);
            break;
        }
      });
    }
    return { state, config };
  });
});

const WORDS = ['base', 'run', 'files', 'start'];

function parse(source) {
  const lines = [];
  for (const { text, at } of source.lines()) {
    if (text.trim() === '' || text.startsWith('#')) continue;
    const [word, ...rest] = text.split(' ');
    if (!WORDS.includes(word)) {
      throw new Failure(`${word} is no word that begins a line`, { at, help: `there are ${WORDS.join(', ')}` });
    }
    lines.push({ word, text: rest.join(' ').trim(), at });
  }
  return lines;
}

// A frontend that reads package.json: it installs the dependencies, runs scripts.build, and makes an
// image that starts the program. See README.md.

import {
  Failure, at, buildArg, contextFiles, definition, describer, eachPlatform, frontend, option, pullAll, targets, warn,
} from './wbuild/index.js';
import { manager } from './managers.js';
import { Project } from './project.js';
import { nodeTag } from './versions.js';

const DEFAULT_NODE = '24';
const APP = '/app';
const TARGETS = {
  image: 'the image: what is built, without what only building needs',
  build: 'what scripts.build has made, with all dependencies',
  dependencies: 'the dependencies alone',
};

export const build = frontend(() => {
  const project = new Project(definition('json'));
  const [wanted = 'image', ...more] = targets();
  if (!(wanted in TARGETS) || more.length > 0) {
    throw new Failure(`there is no target ${[wanted, ...more].join(', ')}`, {
      kind: 'not-found', hints: [`targets are ${Object.keys(TARGETS).join(', ')}`],
    });
  }
  const files = contextFiles({ exclude: ['node_modules', '**/node_modules'] });
  const tool = manager(project, files, project.source.name.split('/').pop());
  eachPlatform((platform) => image(project, files, tool, wanted, platform));
});

export const describe = describer({
  targets: () => Object.entries(TARGETS).map(([name, summary]) => ({ name, summary, isDefault: name === 'image' })),
  parameters: () => {
    const project = new Project(definition('json'));
    const arg = (name, summary, value) => ({ kind: 'arg', name, summary, value: buildArg(name, value) });
    return [
      arg('NODE_IMAGE', 'the image to build in', references(project).base),
      arg('NODE_RUNTIME_IMAGE', 'the image to run in', references(project).runtime),
    ];
  },
  check: () => {
    const project = new Project(definition('json'));
    const files = contextFiles();
    const tool = manager(project, files, project.source.name.split('/').pop());
    project.command();
    references(project);
    if (project.has.any && !tool.lock) {
      warn('no file locks the versions of the dependencies', {
        code: 'unlocked', at: project.at('dependencies') ?? project.at('devDependencies'),
        help: `commit the lock file that ${tool.name} writes, so that two builds install the same`,
      });
    }
  },
});

/** The two base images. */
function references(project) {
  const { engines = {} } = project.json;
  let tag = DEFAULT_NODE;
  if (engines.node !== undefined) {
    tag = nodeTag(engines.node);
    if (!tag) {
      throw new Failure(`no release of Node.js is known for ${JSON.stringify(engines.node)}`, {
        at: project.at('engines', 'node'), help: 'name the image yourself: wbuild.base, or the build argument NODE_IMAGE',
      });
    }
  }
  const base = buildArg('NODE_IMAGE') ?? project.settings.base ?? `node:${tag}`;
  const official = /^node:/.test(base);
  const slim = official && !/slim|alpine/.test(base) ? `${base}-slim` : base;
  const runtime = buildArg('NODE_RUNTIME_IMAGE') ?? project.settings.runtime ?? slim;
  return { base, runtime, user: project.settings.user ?? (/^node:/.test(runtime) ? 'node' : '1000:1000') };
}

function image(project, files, tool, wanted, platform) {
  const { base, runtime, user } = references(project);
  const [from, to] = at(project.at('wbuild', 'base') ?? project.at('engines', 'node') ?? project.source.span(0, 1),
    () => pullAll([base, runtime], { platform }));
  const command = project.command();
  const place = (...keys) => ({ at: project.at(...keys) });

  // Only what an installation reads is there, so other changes do not repeat it.
  // As root whatever the images say: it is the result that has a user.
  let state = from.state.dir(APP).user('0:0');
  if (project.settings.packages?.length) state = state.run(aptInstall(project.settings.packages), place('wbuild', 'packages'));
  if (project.has.any) {
    state = state
      .copy(files, '.', APP, { include: tool.manifests, name: 'copy manifests' })
      .run(tool.install, { mounts: tool.mounts, name: tool.install, ...place('dependencies') });
  }
  if (wanted === 'dependencies') return { state, config: from.config.workdir(APP) };

  state = state.copy(files, '.', APP, { name: 'copy sources' });
  if (project.scripts.build !== undefined) {
    state = state.run(tool.run('build'), { mounts: tool.mounts, ...place('scripts', 'build') });
  }
  if (wanted === 'build') return { state, config: from.config.workdir(APP).cmd(command) };
  if (project.has.dev) state = state.run(tool.prune, { mounts: tool.mounts, ...place('devDependencies') });

  const env = { NODE_ENV: 'production', ...project.settings.env };
  let result = to.state.user('0:0');
  if (project.settings.packages?.length) result = result.run(aptInstall(project.settings.packages), place('wbuild', 'packages'));
  const config = to.config.workdir(APP).user(user).env(env).expose(project.settings.ports ?? []).cmd(command)
    .label({ ...project.labels(), ...repository() });
  return { state: result.copy(state, `${APP}/.`, APP, { name: `copy ${APP} from the build` }), config };
}

const aptInstall = (packages) =>
  `apt-get update && apt-get install --yes --no-install-recommends ${packages.join(' ')} && rm -rf /var/lib/apt/lists/*`;

/** Labels about the repository that the context lies in. */
function repository() {
  const facts = { source: option('vcs:source'), revision: option('vcs:revision') };
  return Object.fromEntries(
    Object.entries(facts).filter(([, value]) => value).map(([key, value]) => [`org.opencontainers.image.${key}`, value]));
}

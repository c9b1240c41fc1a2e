// The package managers: which one a project uses, and how it is told what to do.

import { Failure, mount } from './wbuild/index.js';

/** By the file that locks versions. The order is that of preference. */
const LOCKS = [
  ['package-lock.json', 'npm'], ['npm-shrinkwrap.json', 'npm'], ['pnpm-lock.yaml', 'pnpm'], ['yarn.lock', 'yarn'],
];

/** Files that an installation reads, besides the lock. */
const SETTINGS = [
  '.npmrc', '.yarnrc', '.yarnrc.yml', '.yarn/releases', '.yarn/plugins', '.yarn/patches', 'pnpm-workspace.yaml', '.pnpmfile.cjs', 'patches',
];

/** `{ name, lock, install, prune, run, mounts, manifests }` for a project and the files of its context. */
export function manager(project, files, file) {
  const present = new Set(files.readDir('/').map(({ path }) => path));
  const asked = project.json.packageManager;
  const [, named, major] = typeof asked === 'string' ? asked.match(/^(npm|pnpm|yarn)@(\d+)/) ?? [] : [];
  if (asked !== undefined && !named) {
    throw new Failure(`packageManager ${JSON.stringify(asked)} is not known`, {
      at: project.at('packageManager'), kind: 'unsupported', help: 'npm, pnpm and yarn are, with a version: "pnpm@9.0.0"',
    });
  }
  const lock = LOCKS.find(([path, owner]) => present.has(path) && (!named || owner === named));
  const name = named ?? lock?.[1] ?? 'npm';
  const modern = name === 'yarn' && (Number(major ?? 1) > 1 || present.has('.yarnrc.yml'));
  const manifests = [file, ...(lock ? [lock[0]] : []), ...SETTINGS, ...project.local];
  if (project.workspaces || present.has('pnpm-workspace.yaml')) manifests.push('**/package.json');
  return { name, lock: lock?.[0], manifests, ...commands(name, modern, lock !== undefined) };
}

function commands(name, modern, locked) {
  // Comes with Node.js up to 24; where it does not, the base must have the package manager.
  const corepack = 'if command -v corepack >/dev/null; then corepack enable; fi && ';
  switch (name) {
    case 'pnpm': return {
      install: `${corepack}pnpm install ${locked ? '--frozen-lockfile' : '--no-frozen-lockfile'} --store-dir /var/cache/pnpm`,
      prune: 'CI=true pnpm prune --prod',
      run: (script) => `pnpm run ${script}`,
      mounts: [mount.cache('/var/cache/pnpm', { id: 'package-json/pnpm' })],
    };
    case 'yarn': return modern ? {
      install: `${corepack}yarn install ${locked ? '--immutable' : ''}`.trim(),
      prune: 'yarn workspaces focus --all --production',
      run: (script) => `yarn run ${script}`,
      mounts: [mount.cache('/root/.yarn/berry/cache', { id: 'package-json/yarn-berry' })],
    } : {
      install: `${corepack}yarn install ${locked ? '--frozen-lockfile' : ''} --cache-folder /var/cache/yarn`.replace(/ +/g, ' '),
      prune: 'yarn install --production --ignore-scripts --prefer-offline --cache-folder /var/cache/yarn',
      run: (script) => `yarn run ${script}`,
      mounts: [mount.cache('/var/cache/yarn', { id: 'package-json/yarn' })],
    };
    default: return {
      install: `npm ${locked ? 'ci' : 'install'} --no-audit --no-fund --cache /var/cache/npm`,
      prune: 'npm prune --omit=dev --no-audit --no-fund --cache /var/cache/npm',
      run: (script) => `npm run ${script}`,
      mounts: [mount.cache('/var/cache/npm', { id: 'package-json/npm' })],
    };
  }
}

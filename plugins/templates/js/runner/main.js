// A runner: it says how well a platform can be run here, and plans how a process is launched. The
// host starts the process, after it has checked the plan.
//
// This one runs what the machine runs, and lets no process gain privileges.

import { nativePlatforms } from 'wbuild:runner/machine@0.1.0';
import { Plan } from 'wbuild:runner/plan@0.1.0';

const failure = (kind, message, hint) => ({
  kind, message, retryable: false, diagnostics: [], attrs: hint ? [['hint', hint]] : [],
});

const same = (a, b) => a.os === b.os && a.architecture === b.architecture && (a.variant ?? '') === (b.variant ?? '');
const name = ({ os, architecture, variant }) => [os, architecture, variant].filter(Boolean).join('/');

export const planner = {
  /** One answer for each platform: an offer, or why not. The lowest rank of all runners wins. */
  supports(platforms) {
    const native = nativePlatforms();
    return platforms.map((platform) => native.some((one) => same(one, platform))
      ? { tag: 'ok', val: { rank: 0, how: 'native', attrs: [] } }
      : { tag: 'err', val: failure('unsupported', `${name(platform)} does not run here`, 'use the runner qemu as well') });
  },

  /** The plan for one process: the host's own specification, made stricter. */
  makePlan(process) {
    const spec = JSON.parse(process.baseSpec());
    spec.process.noNewPrivileges = true;
    return Plan.fromSpec(JSON.stringify(spec));
  },
};

// The pool's state: summary, licenses, workers, shares, nodes. What is shown comes from one answer of the API each.

import { el, byId, say, rows, bar, count, hashRate, difficulty, duration, percent, amount } from './dom.js';

const HASHES_PER_DIFFICULTY = 2 ** 32;
/** Stratum's verdicts in words. */
const VERDICTS = {
  20: 'not valid',
  21: 'stale: too late for its job',
  22: 'sent twice',
  23: 'below the difficulty',
  24: 'worker not authorised',
  25: 'not subscribed',
};
const STATES = {
  mining: ['mining', 'good'],
  no_license: ['no license may mine', 'warn'],
  no_node: ['no node', 'bad'],
  no_ledger: ['share log fails', 'bad'],
};

const sum = (counts) => Object.values(counts).reduce((total, value) => total + value, 0);

function tile(what, value, note) {
  const made = el('div', 'tile', el('p', 'what', what), el('p', 'value', value));
  if (note) made.append(el('p', 'note', note));
  return made;
}

export function tiles(target, items) {
  rows(target, items, ([what]) => what, (item) => tile(...item), '');
}

/** Why there is no work, and from when there will be. */
function reason(status) {
  if (!status.reason) return '';
  const from = status.resumes_from_height;
  const then = from ? ` Work goes on from block ${count(from)} on.` : '';
  return `${status.reason[0].toUpperCase()}${status.reason.slice(1)}.${then}`;
}

export function showStatus(status) {
  say(byId('network'), status.network);
  say(byId('software'), `${status.software}, up for ${duration(status.uptime)}.`);
  const [words, kind] = STATES[status.state] ?? [status.state, 'bad'];
  say(byId('state'), words);
  byId('state').className = `pill ${kind}`;
  const why = reason(status);
  say(byId('reason'), why);
  byId('reason').hidden = !why;

  const rate = status.hash_rate;
  const { accepted } = status.shares;
  const rejected = sum(status.shares.rejected);
  const job = status.job;
  const wait = job && rate.hour > 0 ? (job.network_difficulty * HASHES_PER_DIFFICULTY) / rate.hour : null;
  const part = accepted + rejected > 0 ? percent(rejected / (accepted + rejected)) : 'none';
  tiles(byId('summary'), [
    ['Hash rate', hashRate(rate.ten_minutes), `${hashRate(rate.hour)} over an hour`],
    ['Connections', count(status.connections), status.connections === 1 ? 'machine' : 'machines'],
    ['Next block', job ? count(job.height) : 'none', job ? `difficulty ${difficulty(job.network_difficulty)}` : 'no work to give'],
    ['Reward', job ? amount(job.coinbase_value) : 'none', job ? `${count(job.transactions)} transactions` : null],
    ['Blocks found', count(status.blocks_found), wait === null ? 'since the start' : `one in ${duration(wait)} expected`],
    ['Shares', count(accepted), `${part} refused`],
  ]);
  showShares(status.shares);
  showNodes(status.nodes);
}

function showShares(shares) {
  const total = shares.accepted + sum(shares.rejected);
  const refused = Object.entries(shares.rejected).sort((a, b) => b[1] - a[1]);
  const items = [['accepted', shares.accepted, ''], ...refused.map(([code, number]) =>
    [VERDICTS[code] ?? `code ${code}`, number, 'bad'])];
  const row = ([words, number, kind]) => el('div', 'row', el('span', 'grow', words),
    el('span', 'number', `${count(number)}  ·  ${percent(number / total)}`), bar(number / total, kind));
  rows(byId('shares'), total > 0 ? items : [], ([words]) => words, row, 'No share has come since the pool started.');
}

function showNodes(nodes) {
  const row = (node) => {
    const [words, kind] = node.in_use ? ['gives work', 'good'] : node.trouble ? ['trouble', 'bad'] : ['stands by', ''];
    const height = node.height === null ? 'height unknown' : `at block ${count(node.height)}`;
    const lag = node.lag ? `, ${count(node.lag)} behind` : '';
    const speed = node.answer_ms === null ? '' : `, answers in ${count(node.answer_ms)} ms`;
    const made = el('div', 'row', el('span', 'grow mono', node.node), el('span', `pill ${kind}`, words),
      el('span', 'wide quiet small', height + lag + speed));
    if (node.trouble) made.append(el('span', 'wide small name', node.trouble));
    return made;
  };
  rows(byId('nodes'), nodes, (node) => node.node, row, 'No node is configured.');
}

const ACTIONS = {
  add: 'will be added',
  remove: 'will be removed',
  enable_cap: 'the cap will be turned on',
  disable_cap: 'the cap will be turned off',
};

function mayMine(license) {
  if (license.in_use) return ['signs now', 'good'];
  if (license.eligible_next) return ['may mine', 'good'];
  if (!license.whitelisted) return ['not registered', 'bad'];
  return ['must wait', 'warn'];
}

function licenseRow(license) {
  const { cap } = license;
  const [words, kind] = mayMine(license);
  const used = license.blocks_in_window;
  const left = cap === null ? 'no cap' : `${count(used)} of ${count(cap)} blocks in the window`;
  const row = el('div', 'row', el('span', 'grow mono', license.address), el('span', `pill ${kind}`, words));
  const full = cap !== null && used >= cap;
  if (cap !== null) row.append(bar(cap > 0 ? used / cap : 1, full ? 'full' : ''));
  const notes = [cap === null ? `${count(used)} blocks in the window, no cap` : left];
  notes.push(license.last_block === null ? 'no block yet' : `last block ${count(license.last_block)}`);
  if (!license.eligible_next && license.eligible_from_height !== null) {
    notes.push(`may mine again from block ${count(license.eligible_from_height)}`);
  }
  if (license.announced) notes.push(`${ACTIONS[license.announced.action]} by a transaction that waits for its block`);
  row.append(el('span', 'wide quiet small', notes.join(' · ')));
  return row;
}

export function showLicenses(licenses) {
  rows(byId('licenses'), licenses, (license) => license.address, licenseRow,
    'The state of the licenses is not known yet: no node has told it.');
}

/** A worker's row. `now` is the pool's time. */
export function workerRow(worker, now) {
  const name = el('button', 'plain name grow', worker.user);
  name.type = 'button';
  name.dataset.worker = worker.user;
  const refused = sum(worker.rejected);
  const seen = worker.last_share === null ? 'no share yet' : `last share ${ago(now - worker.last_share)}`;
  const here = worker.connections > 0 ? ['connected', 'good'] : ['away', ''];
  return el('div', 'row', name, el('span', `pill ${here[1]}`, here[0]),
    el('span', 'number', hashRate(worker.hash_rate.ten_minutes)),
    el('span', 'wide quiet small', `${count(worker.accepted)} accepted, ${count(refused)} refused · ${seen}`));
}

function ago(seconds) {
  return seconds < 60 ? 'within a minute' : `${duration(seconds)} ago`;
}

export function showWorkers({ total, workers }, shown, now) {
  const minute = Math.floor(now / 60) * 60;
  const items = workers.slice(0, shown).map((worker) => ({ ...worker, minute: worker.last_share && minute }));
  rows(byId('workers'), items, (worker) => worker.user, (worker) => workerRow(worker, now),
    'No worker has connected since the pool started.');
  say(byId('worker-count'), total === 0 ? '' : `${count(total)} since the start`);
  byId('more-workers').hidden = workers.length <= shown;
}

export function showLog(shares) {
  const { window, logged } = shares;
  const part = window.wanted > 0 ? percent(Math.min(1, window.work / window.wanted)) : percent(0);
  const trouble = shares.trouble ? ` Trouble: ${shares.trouble}.` : '';
  say(byId('log'), `${count(logged)} shares in the log. Those that a block pays for: ${count(window.shares)}, ` +
    `${part} of the window.${trouble}`);
}

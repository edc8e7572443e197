// The dashboard's rounds: asks the API every two seconds while the page is seen, and says so when no answer comes.

import { byId, say, clock } from './dom.js';
import { Chart } from './chart.js';
import { showStatus, showLicenses, showWorkers, showLog } from './view.js';
import { showBlocks, showMember, showNoMember } from './money.js';

/** Milliseconds between two rounds. */
const ROUND = 2000;
/** Milliseconds that an answer may take. */
const PATIENCE = 6000;
/** Rounds between two looks at what changes slowly or is long. */
const SLOW = 5;
/** Workers in an answer beyond which it is fetched every [`SLOW`] rounds only. */
const MANY_WORKERS = 100;
const SPANS = { hour: 3600, day: 86400 };
/** Rows of a list at first, and more with each press of its button. */
const PAGE = 10;

const poolChart = new Chart(byId('pool-chart'), 'Hash rate of the pool');
const workerChart = new Chart(byId('worker-chart'), 'Hash rate of the worker');
const page = {
  span: 'hour', blocks: PAGE, workers: PAGE, member: null, worker: null,
  round: 0, timer: null, busy: false, again: false, silentSince: null, seen: null, list: { total: 0, workers: [] }, money: null,
};

/** The pool said no, and why. */
class Refused extends Error {}
/** The pool said nothing, or nothing whole. */
class Silent extends Error {}

async function ask(path) {
  let answer;
  let value;
  try {
    answer = await fetch(`/api/v1/${path}`, { signal: AbortSignal.timeout(PATIENCE), cache: 'no-store' });
    value = await answer.json();
  } catch (error) {
    throw new Silent(error.message);
  }
  if (!answer.ok) throw new Refused(value.error ?? `status ${answer.status}`);
  return value;
}

/** What a chart shows; a worker that is not there is said in words. */
async function draw(chart, query, empty) {
  try {
    const rates = await ask(`history?span=${page.span}${query}`);
    if (rates.hash_rate.some((rate) => rate > 0)) chart.show(rates, SPANS[page.span]);
    else chart.clear(empty);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    chart.clear(`${error.message}.`);
  }
}

async function refreshMember() {
  const asked = page.member;
  if (!asked) return;
  try {
    const member = await ask(`payouts?address=${encodeURIComponent(asked)}`);
    if (asked === page.member) showMember(member, page.list.workers);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (asked !== page.member) return;
    showNoMember(`This address has no account here: ${error.message}.`);
    // It will be as wrong in two seconds.
    page.member = null;
  }
}

async function refresh() {
  const slow = page.round % SLOW === 0;
  page.round += 1; // before the first answer comes: now() may set it back meanwhile
  // One after the other: each reader takes one of the connections that the pool allows, not six.
  const status = await ask('status');
  showStatus(status);
  showLicenses(await ask('licenses'));
  const blocks = await ask('blocks');
  // Payouts change with the chain and with what the pool finds.
  const seen = `${status.job?.parent} ${status.blocks_found}`;
  if (slow || seen !== page.seen) {
    page.money = await ask('payouts');
    page.seen = seen;
  }
  showBlocks(blocks, page.money, page.blocks);
  if (slow || page.list.total < MANY_WORKERS) page.list = await ask('workers');
  showWorkers(page.list, page.workers, status.time);
  await refreshMember();
  if (slow) {
    showLog(await ask('shares'));
    await charts();
  }
}

async function charts() {
  const none = 'No share has come in this time.';
  await draw(poolChart, '', none);
  if (page.worker) await draw(workerChart, `&worker=${encodeURIComponent(page.worker)}`, none);
}

function answered() {
  page.silentSince = null;
  byId('silent').hidden = true;
  say(byId('updated'), `As of ${new Date().toLocaleTimeString()}.`);
}

function silent() {
  page.silentSince ??= Date.now() / 1000;
  say(byId('silent'), `The pool has not answered since ${clock(page.silentSince)}. What is below is from before. ` +
    'This page keeps asking.');
  if (!page.money) {
    say(byId('state'), 'no answer');
    byId('state').className = 'pill bad';
  }
  byId('silent').hidden = false;
}

/** One round at a time, and none while nobody looks. */
async function round() {
  clearTimeout(page.timer);
  if (page.busy || document.hidden) return;
  page.busy = true;
  page.again = false;
  try {
    await refresh();
    answered();
  } catch (error) {
    silent();
    // A pool that is away is said on the page; anything else belongs in the console too.
    if (!(error instanceof Silent)) console.error(error);
  }
  page.busy = false;
  page.timer = setTimeout(round, page.again ? 0 : ROUND);
}

/** At once, from the beginning: after the reader asked for something else. */
function now() {
  page.round = 0;
  page.again = true;
  round();
}

/** `#member=ADDRESS` and `#worker=USER` are links to an account and to a worker's chart. */
function follow() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  page.member = wanted.get('member')?.trim() || null;
  page.worker = wanted.get('worker') || null;
  byId('address').value = page.member ?? '';
  if (page.member) showNoMember('Looking…');
  else showNoMember('Enter the address that you mine to: what it earned, was paid and is owed.');
  byId('worker-detail').hidden = !page.worker;
  if (page.worker) {
    say(byId('worker-name'), page.worker);
    workerChart.clear('Looking…');
  }
  now();
}

function go(name, value) {
  const wanted = new URLSearchParams(location.hash.slice(1));
  if (value) wanted.set(name, value);
  else wanted.delete(name);
  const hash = `#${wanted}`;
  if (hash === location.hash) follow();
  else location.hash = hash;
}

byId('search').addEventListener('submit', (event) => {
  event.preventDefault();
  go('member', byId('address').value.trim());
});
byId('workers').addEventListener('click', (event) => {
  const worker = event.target.closest('[data-worker]')?.dataset.worker;
  if (worker === undefined) return;
  go('worker', worker);
  byId('worker-detail').scrollIntoView({ block: 'nearest' });
});
byId('worker-close').addEventListener('click', () => go('worker', null));
byId('span').addEventListener('click', (event) => {
  const span = event.target.dataset.span;
  if (!span) return;
  page.span = span;
  byId('span').querySelectorAll('button').forEach((button) =>
    button.setAttribute('aria-pressed', String(button.dataset.span === span)));
  now();
});
[['more-blocks', 'blocks'], ['more-workers', 'workers']].forEach(([button, list]) =>
  byId(button).addEventListener('click', () => {
    page[list] += 5 * PAGE;
    now();
  }));
addEventListener('hashchange', follow);
document.addEventListener('visibilitychange', round);
follow();

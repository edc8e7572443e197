// Blocks with whom they pay, and a member's account.

import { el, byId, say, rows, amount, count, percent, when } from './dom.js';
import { tiles } from './view.js';

/** What became of a block, in words and as a colour. */
const STATES = {
  pending: ['on its way', ''],
  immature: ['in the chain', 'good'],
  mature: ['can be spent', 'good'],
  orphaned: ['not in the chain', 'bad'],
  refused: ['refused by the nodes', 'bad'],
  stale: ['not in the chain', 'bad'],
  side: ['beside the chain', 'warn'],
  accepted: ['in the chain', 'good'],
};
const RULES = {
  pplns: 'Paid by the last shares (PPLNS)',
  solo: 'Each finder is paid alone (solo)',
  chapter: 'The chapter is paid',
};
/** Blocks in a member's account: all are in the CSV. */
const MEMBER_BLOCKS = 8;
/** Why coins of a block cannot be spent yet. */
const LOCKED = 'coins can be spent 100 blocks later';

function payees(block) {
  const members = block.outputs.reduce((total, output) => total + output.amount, 0);
  // The chapter's output, if there is one, is the last, and not among what members are paid.
  const chapter = members > block.paid ? block.outputs.length - 1 : -1;
  const table = el('table', '', el('tr', '', el('th', '', 'Payee'), el('th', 'number', 'Amount')));
  block.outputs.forEach((output, index) => table.append(el('tr', '',
    el('td', 'name', el('span', 'mono', output.address), index === chapter ? el('span', 'quiet', ' (chapter)') : null),
    el('td', 'number', amount(output.amount)))));
  const words = block.outputs.length === 1 ? 'one payee' : `${count(block.outputs.length)} payees`;
  return el('details', '', el('summary', '', `${words} · fee ${amount(block.fee)} · carried ${amount(block.carried)}`), table);
}

function blockRow(block) {
  const [words, kind] = STATES[block.state] ?? [block.state, ''];
  const row = el('div', 'row', el('span', 'height', count(block.height)), el('span', 'grow quiet small', when(block.time)),
    block.reward === undefined ? null : el('span', 'number', amount(block.reward)), el('span', `pill ${kind}`, words),
    el('span', 'wide mono quiet', block.hash),
    el('span', 'wide small name', el('span', 'quiet', 'License '), el('span', 'mono', block.license),
      el('span', 'quiet', ' · found by '), el('span', 'mono', block.finder)));
  if (block.state === 'immature') row.querySelector('.pill').title = LOCKED;
  if (block.outputs) row.append(payees(block));
  return row;
}

/** Blocks of the ledger, and those found since the start that it does not have yet; the latest first. */
function merged(found, payouts) {
  const known = new Map(payouts.blocks.map((block) => [block.hash, block]));
  found.forEach((block) => {
    const ledger = known.get(block.hash);
    const { height, hash, time, license, worker, status } = block;
    if (!ledger) known.set(hash, { height, hash, time, license, finder: worker, state: status });
    // Only the nodes know of a refusal or a rival; only the ledger knows of what can be spent.
    else if (['refused', 'side', 'stale'].includes(status)) known.set(hash, { ...ledger, state: status });
  });
  return [...known.values()].sort((a, b) => b.height - a.height || b.time - a.time);
}

export function showBlocks(found, payouts, shown) {
  const blocks = merged(found, payouts);
  rows(byId('blocks'), blocks.slice(0, shown), (block) => block.hash, blockRow, 'No block has been found yet.');
  byId('more-blocks').hidden = blocks.length <= shown;
  // The chapter alone is paid whatever there is.
  const least = payouts.scheme !== 'chapter' ? `, from ${amount(payouts.min_payout)} on` : '';
  const carried = payouts.carried > 0 ? `, ${amount(payouts.carried)} carried over` : '';
  say(byId('rules'), `${RULES[payouts.scheme] ?? payouts.scheme}, fee ${percent(payouts.fee)}${least}${carried}.`);
}

/** What became of a member's part of a block: one that it does not pay yet is not on its way to a wallet. */
function memberState(block) {
  const inChain = block.state === 'immature' || block.state === 'mature';
  return inChain && block.paid === 0 ? 'carried over' : (STATES[block.state] ?? [block.state])[0];
}

function memberBlocks(member) {
  const table = el('table', '', el('tr', '', el('th', '', 'Block'), el('th', '', 'State'), el('th', 'number', 'Earned'),
    el('th', 'number', 'Paid')));
  member.blocks.slice(0, MEMBER_BLOCKS).forEach((block) => table.append(el('tr', '', el('td', '', count(block.height)),
    el('td', '', memberState(block)), el('td', 'number', amount(block.earned)),
    el('td', 'number', amount(block.paid)))));
  return table;
}

/** A member's account: parts stay in their place while their texts change. */
export function showMember(member, workers) {
  const target = byId('member');
  if (target.dataset.address !== member.address) {
    target.replaceChildren(el('p', 'mono', member.address), el('div', 'tiles'), el('div', 'list'), el('div', ''));
    target.dataset.address = member.address;
  }
  const [, numbers, machines, blocks] = target.children;
  tiles(numbers, [
    ['Paid', amount(member.paid), 'in the chain’s blocks'],
    ['Balance', amount(member.balance), 'carried to a later block'],
    ['Part of the window', percent(member.window_part), 'of the work that is paid'],
    ['Next block', amount(member.estimate), 'if the pool found it now'],
  ]);
  const own = workers.filter(({ user }) => user === member.address || user.startsWith(`${member.address}.`));
  const words = own.length === 1 ? 'One worker' : `${count(own.length)} workers`;
  const online = own.filter((worker) => worker.connections > 0).length;
  rows(machines, [`${words} since the pool started, ${count(online)} connected now.`], () => 'workers',
    (text) => el('p', 'quiet small', text), '');
  const shown = JSON.stringify(member.blocks);
  if (blocks.shown === shown) return;
  blocks.shown = shown;
  if (member.blocks.length === 0) {
    blocks.replaceChildren(el('p', 'empty', 'No block has paid this address yet.'));
    return;
  }
  const more = member.blocks_in_all > MEMBER_BLOCKS ? `The latest ${MEMBER_BLOCKS} of ${count(member.blocks_in_all)}. ` : '';
  const link = el('a', '', 'All blocks as CSV');
  link.href = `/api/v1/payouts?address=${encodeURIComponent(member.address)}&format=csv`;
  blocks.replaceChildren(memberBlocks(member), el('p', 'small quiet', more, link));
}

/** Words in place of an account. */
export function showNoMember(words) {
  const target = byId('member');
  delete target.dataset.address;
  target.replaceChildren(el('p', 'empty', words));
}

// Elements, and numbers as people read them. Text from outside becomes text nodes only, never markup.

/** An element with a class and children: elements or texts. */
export function el(tag, name, ...children) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...children.filter((child) => child !== null && child !== undefined).map((child) =>
    child instanceof Node ? child : document.createTextNode(String(child))));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** Writes a text where it has changed. */
export function say(target, text) {
  const wanted = String(text);
  if (target.textContent !== wanted) target.textContent = wanted;
}

/**
 * Brings the children of `parent` in line with `items`, one row each, known by `key`. A row whose `make` would give
 * the same again stays as it is, so that what is open, focused or selected is not lost.
 */
export function rows(parent, items, key, make, empty) {
  if (items.length === 0) {
    if (parent.dataset.empty !== empty) {
      parent.replaceChildren(el('p', 'empty', empty));
      parent.dataset.empty = empty;
    }
    return;
  }
  if (parent.dataset.empty !== undefined) {
    delete parent.dataset.empty;
    parent.replaceChildren();
  }
  const known = new Map([...parent.children].map((row) => [row.dataset.key, row]));
  items.forEach((item, index) => {
    const name = String(key(item));
    const state = JSON.stringify(item);
    let row = known.get(name);
    known.delete(name);
    if (!row || row.shown !== state) {
      const fresh = make(item);
      fresh.dataset.key = name;
      fresh.shown = state;
      if (row) {
        const open = row.querySelector('details')?.open;
        if (open && fresh.querySelector('details')) fresh.querySelector('details').open = true;
        const focused = row.contains(document.activeElement) && document.activeElement.tagName;
        row.replaceWith(fresh);
        if (focused) fresh.querySelector(focused.toLowerCase())?.focus();
      }
      row = fresh;
    }
    if (parent.children[index] !== row) parent.insertBefore(row, parent.children[index] ?? null);
  });
  known.forEach((row) => row.remove());
}

/** A bar that is filled to a part of one. */
export function bar(part, kind) {
  const fill = el('span');
  fill.style.width = `${Math.min(1, Math.max(0, part)) * 100}%`;
  return el('div', `bar ${kind ?? ''}`, fill);
}

const PREFIXES = ['', 'k', 'M', 'G', 'T', 'P', 'E', 'Z'];

function scaled(value) {
  let step = 0;
  while (value >= 999.5 && step < PREFIXES.length - 1) {
    value /= 1000;
    step += 1;
  }
  const digits = value === 0 || value >= 99.5 ? 0 : value >= 9.95 ? 1 : 2;
  return [value.toFixed(digits), PREFIXES[step]];
}

/** Hashes per second. */
export function hashRate(value) {
  const [number, prefix] = scaled(value);
  return `${number} ${prefix}H/s`;
}

/** A difficulty. */
export function difficulty(value) {
  if (value > 0 && value < 1) return value.toPrecision(3);
  const [number, prefix] = scaled(value);
  return `${number}${prefix && ` ${prefix}`}`;
}

/** A count with thousands set apart. */
export const count = (value) => value.toLocaleString('en');

/** A part of one, in percent. */
export function percent(part) {
  const value = part * 100;
  return `${value === 0 || value >= 10 ? value.toFixed(1) : value.toPrecision(2)} %`;
}

/** Base units as IoP: all digits that are not zero, two at least. */
export function amount(units) {
  const whole = Math.floor(units / 1e8);
  const rest = String(units % 1e8).padStart(8, '0').replace(/0{1,6}$/, '');
  return `${count(whole)}.${rest} IoP`;
}

/** Seconds as a length of time. */
export function duration(seconds) {
  if (seconds < 1) return 'under 1 s';
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  if (seconds < 730 * 86400) return `${count(Math.round(seconds / 86400))} days`;
  return `${count(Math.round(seconds / 31557600))} years`;
}

/** Seconds since 1970, as date and time here. */
export function when(time) {
  return new Date(time * 1000).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' });
}

/** Seconds since 1970, as the time of the day here. */
export function clock(time) {
  return new Date(time * 1000).toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit', hour12: false });
}

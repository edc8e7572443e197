// A chart of hash rates over time, drawn as SVG in the size that it has on the screen.

import { el, hashRate, clock } from './dom.js';

const NS = 'http://www.w3.org/2000/svg';
const LEFT = 4;
const RIGHT = 6;
const TOP = 22;
const BOTTOM = 22;
/** The part of the span that is shown at least: a young pool's points are not pressed into a corner. */
const LEAST = 1 / 6;
/** Pixels between two times on the axis, at least. */
const APART = 90;

function svg(tag, attributes, text) {
  const made = document.createElementNS(NS, tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  if (text !== undefined) made.textContent = text;
  return made;
}

/** The next of 1, 2, 5, 10, … that is not below. */
function roundUp(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((part) => part * power).find((step) => step >= value * 0.999);
}

export class Chart {
  constructor(box, label) {
    this.box = box;
    this.label = label;
    this.data = null;
    this.pointed = null;
    new ResizeObserver(() => this.draw()).observe(box);
    box.addEventListener('pointermove', (event) => this.point(event.clientX));
    box.addEventListener('pointerdown', (event) => this.point(event.clientX));
    box.addEventListener('pointerleave', () => this.point(null));
  }

  /** Shows `{step, from, hash_rate}`, which holds `span` seconds when it is full. */
  show(data, span) {
    this.data = data;
    this.span = span;
    this.draw();
  }

  /** Shows words instead. */
  clear(words) {
    this.data = null;
    this.box.replaceChildren(el('p', 'empty', words));
  }

  point(x) {
    this.pointed = x === null ? null : x - this.box.getBoundingClientRect().left;
    if (this.data) this.draw();
  }

  draw() {
    const { width, height } = this.box.getBoundingClientRect();
    if (!this.data || width < 50 || height < 50) return;
    const { step, from, hash_rate: values } = this.data;
    const end = from + step * values.length;
    const begin = Math.min(from, end - this.span * LEAST);
    const unit = roundUp(Math.max(...values) / 3);
    const top = Math.max(1, Math.ceil(Math.max(...values) / unit)) * unit;
    const x = (time) => LEFT + ((time - begin) / (end - begin)) * (width - LEFT - RIGHT);
    const y = (value) => height - BOTTOM - (value / top) * (height - TOP - BOTTOM);
    const middle = (index) => x(from + step * (index + 0.5));

    const chart = svg('svg', { role: 'img', 'aria-label': `${this.label}: now ${hashRate(values.at(-1))}` });
    for (let value = 0; value <= top * 1.001; value += unit) {
      chart.append(svg('line', { class: 'grid', x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
      if (value > 0) chart.append(svg('text', { x: LEFT, y: y(value) - 4 }, hashRate(value)));
    }
    this.times(chart, begin, end, x, width, height);
    const points = values.map((value, index) => `${middle(index).toFixed(1)},${y(value).toFixed(1)}`);
    const last = values.length - 1;
    chart.append(svg('path', {
      class: 'area',
      d: `M${middle(0).toFixed(1)},${y(0)}L${points.join('L')}L${middle(last).toFixed(1)},${y(0)}Z`,
    }));
    chart.append(svg('polyline', { class: 'line', points: points.join(' ') }));
    if (values.length === 1) this.dot(chart, middle(0), y(values[0]));
    if (this.pointed !== null) {
      const time = begin + ((this.pointed - LEFT) / (width - LEFT - RIGHT)) * (end - begin);
      const index = Math.min(last, Math.max(0, Math.floor((time - from) / step)));
      const at = middle(index);
      chart.append(svg('line', { class: 'mark', x1: at, x2: at, y1: TOP - 6, y2: height - BOTTOM }));
      this.dot(chart, at, y(values[index]));
      const right = at > width / 2;
      chart.append(svg('text', { class: 'readout', x: at + (right ? -6 : 6), y: 12, 'text-anchor': right ? 'end' : 'start' },
        `${hashRate(values[index])} at ${clock(from + step * index)}`));
    }
    this.box.replaceChildren(chart);
  }

  dot(chart, x, y) {
    chart.append(svg('circle', { class: 'dot', cx: x, cy: y, r: 4 }));
  }

  /** Times on the axis: whole hours or minutes of the reader's clock, as many as fit. */
  times(chart, begin, end, x, width, height) {
    const fits = Math.max(2, Math.floor(width / APART));
    const steps = [120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200];
    const step = steps.find((length) => (end - begin) / length <= fits) ?? 86400;
    const zone = new Date(end * 1000).getTimezoneOffset() * 60;
    for (let time = Math.ceil((begin - zone) / step) * step + zone; time <= end; time += step) {
      const at = x(time);
      if (at < LEFT + 18 || at > width - RIGHT - 18) continue;
      chart.append(svg('text', { x: at, y: height - 5, 'text-anchor': 'middle' }, clock(time)));
    }
  }
}

"use strict";
// layout(vertices, stages): places vertices in columns by what they take in, and in lanes by their
// stages. The same document gives the same drawing: nothing is random and ties go by id.
const BOX = { width: 296, height: 60, across: 64, between: 24, lane: 40, margin: 26 };

function layout(vertices, stages) {
  const count = vertices.length;
  const inputs = vertices.map((vertex) => [...new Set(vertex.inputs.map((edge) => edge.vertex))]);
  const outputs = vertices.map(() => []);
  inputs.forEach((from, to) => from.forEach((id) => outputs[id].push(to)));

  // Columns: behind everything that goes in; what takes nothing in stands beside its first user.
  const column = new Array(count).fill(0);
  for (let id = 0; id < count; id++) for (const from of inputs[id]) column[id] = Math.max(column[id], column[from] + 1);
  for (let id = 0; id < count; id++) {
    if (!inputs[id].length && outputs[id].length) column[id] = Math.min(...outputs[id].slice(0, 5000).map((to) => column[to])) - 1;
  }
  const columns = count ? column.reduce((most, one) => Math.max(most, one), 0) + 1 : 0;

  // Lanes.
  const names = stages.map((stage) => stage.name);
  const lane = new Array(count).fill(-1);
  stages.forEach((stage, number) => stage.vertices.forEach((id) => { if (lane[id] < 0) lane[id] = number; }));
  if (lane.includes(-1)) names.push("other");
  for (let id = 0; id < count; id++) if (lane[id] < 0) lane[id] = names.length - 1;

  // Items: the vertices, and a way for each vertex through the columns that its edges cross.
  const items = vertices.map((_, id) => ({ id, column: column[id], lane: lane[id], height: BOX.height, before: [], after: [] }));
  const way = new Map();
  let crossed = 0;
  for (let to = 0; to < count; to++) for (const from of inputs[to]) crossed += column[to] - column[from] - 1;
  const bends = crossed <= 3000;
  const join = (from, to) => { items[from].after.push(to); items[to].before.push(from); };
  const last = (from, to) => {
    let at = from;
    for (let place = column[from] + 1; bends && place < column[to]; place++) {
      const key = from + ":" + place;
      if (!way.has(key)) {
        way.set(key, items.length);
        items.push({ id: -1, column: place, lane: lane[from], height: 14, before: [], after: [] });
        join(at, way.get(key));
      }
      at = way.get(key);
    }
    return at;
  };
  const ends = inputs.map((from, to) => from.map((id) => { const end = last(id, to); join(end, to); return end; }));

  // Cells: what shares a lane and a column, ordered so that few edges cross.
  const cells = new Map();
  items.forEach((item, number) => {
    const key = item.column * names.length + item.lane;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(number);
  });
  const keys = [...cells.keys()].sort((a, b) => a - b);
  const place = new Array(items.length).fill(0);
  const settle = (key) => cells.get(key).forEach((number, at) => { place[number] = items[number].lane * 1e6 + at; });
  keys.forEach(settle);
  const sweep = (order, side) => order.forEach((key) => {
    const mean = new Map(cells.get(key).map((number) => {
      const near = items[number][side];
      const sum = near.reduce((total, other) => total + place[other], 0);
      return [number, near.length ? sum / near.length : place[number]];
    }));
    cells.get(key).sort((a, b) => mean.get(a) - mean.get(b) || a - b);
    settle(key);
  });
  for (let round = 0; round < 4; round++) {
    sweep(keys, "before");
    sweep([...keys].reverse(), "after");
  }

  // Rows: a cell with very many is folded into a block.
  const most = Math.max(14, Math.ceil(Math.sqrt(count) * 0.9));
  const folds = new Array(columns).fill(1);
  cells.forEach((cell, key) => {
    const at = Math.floor(key / names.length);
    folds[at] = Math.max(folds[at], Math.ceil(cell.length / most));
  });
  const left = [];
  let x = BOX.margin * 2;
  for (let at = 0; at < columns; at++) {
    left.push(x);
    x += folds[at] * (BOX.width + BOX.between) - BOX.between + BOX.across;
  }
  const width = x - BOX.across + BOX.margin * 2;

  const tall = (cell) => {
    let best = 0;
    for (let start = 0; start < cell.length; start += most) {
      const part = cell.slice(start, start + most);
      best = Math.max(best, part.reduce((sum, number) => sum + items[number].height + BOX.between, -BOX.between));
    }
    return best;
  };
  const heights = names.map(() => BOX.height);
  cells.forEach((cell, key) => {
    const at = key % names.length;
    heights[at] = Math.max(heights[at], tall(cell));
  });
  const lanes = [];
  let y = BOX.margin;
  names.forEach((name, number) => {
    const height = heights[number] + BOX.lane + BOX.margin;
    lanes.push({ name, x: BOX.margin, y, width: width - 2 * BOX.margin, height, top: y + BOX.lane });
    y += height + BOX.margin;
  });

  cells.forEach((cell, key) => {
    const at = lanes[key % names.length];
    for (let start = 0; start < cell.length; start += most) {
      const part = cell.slice(start, start + most);
      let row = at.top + (heights[key % names.length] - tall(part)) / 2;
      for (const number of part) {
        const item = items[number];
        item.x = left[item.column] + (start / most) * (BOX.width + BOX.between);
        item.y = row + item.height / 2;
        row += item.height + BOX.between;
      }
    }
  });

  // Edges become straighter where there is room for it.
  const straighten = (key, side) => {
    const cell = cells.get(key), at = lanes[key % names.length], bottom = at.top + heights[key % names.length];
    if (cell.length > most) return;
    let floor = at.top;
    for (const number of cell) {
      const item = items[number], near = item[side];
      const mean = near.length ? near.reduce((sum, other) => sum + items[other].y, 0) / near.length : item.y;
      item.y = Math.max(mean, floor + item.height / 2);
      floor = item.y + item.height / 2 + BOX.between;
    }
    let ceiling = bottom;
    for (const number of [...cell].reverse()) {
      const item = items[number];
      item.y = Math.min(item.y, ceiling - item.height / 2);
      ceiling = item.y - item.height / 2 - BOX.between;
    }
  };
  if (count <= 2000) {
    keys.forEach((key) => straighten(key, "before"));
    [...keys].reverse().forEach((key) => straighten(key, "after"));
  }

  const boxes = vertices.map((_, id) => ({ x: items[id].x, y: items[id].y - BOX.height / 2 }));
  const edges = [];
  inputs.forEach((from, to) => from.forEach((id, number) => {
    const bent = [];
    for (let at = ends[to][number]; at >= count; at = items[at].before[0]) bent.unshift(items[at]);
    edges.push({ from: id, to, points: points(items[id], bent, items[to]) });
  }));
  return { boxes, edges, lanes, width, height: y, inputs, outputs };
}

// The points of an edge: out of a box on its right, level through the columns between, into a box.
function points(from, bent, to) {
  const line = [from.x + BOX.width, from.y];
  for (const item of bent) line.push(item.x, item.y, item.x + BOX.width, item.y);
  line.push(to.x, to.y);
  return line;
}

// The chain of vertices that the end waits for longest, by times where they are known.
function critical(vertices, inputs, end) {
  const timed = vertices.some((vertex) => vertex.outcome && vertex.outcome.durationMs > 0);
  const cost = vertices.map((vertex) => (timed ? (vertex.outcome && vertex.outcome.durationMs) || 0 : 1));
  const total = new Array(vertices.length).fill(0), via = new Array(vertices.length).fill(-1);
  for (let id = 0; id < vertices.length; id++) {
    for (const from of inputs[id]) if (via[id] < 0 || total[from] > total[via[id]]) via[id] = from;
    total[id] = cost[id] + (via[id] < 0 ? 0 : total[via[id]]);
  }
  const chain = [];
  for (let id = end; id >= 0 && id < vertices.length; id = via[id]) chain.unshift(id);
  return { chain, timed, total: total[end] || 0 };
}

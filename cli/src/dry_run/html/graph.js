// Graph: draws a layout as SVG, and moves over it. Only what is in view is in the page; from far
// away all boxes are one shape.
const SVG = "http://www.w3.org/2000/svg";
const NEAR = 0.42, MANY = 500;

function shape(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const pen = document.createElement("canvas").getContext("2d");

// Cuts a name in its middle: what distinguishes names is often at their end.
function shortened(text, width) {
  pen.font = "600 13.5px system-ui, -apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', sans-serif";
  const letters = [...text].slice(0, 400);
  if (pen.measureText(letters.join("")).width <= width) return letters.join("");
  let kept = Math.min(letters.length, 60), cut = "";
  do {
    kept--;
    cut = letters.slice(0, Math.ceil(kept * 0.55)).join("") + "\u2026" + letters.slice(letters.length - Math.floor(kept * 0.45)).join("");
  } while (kept > 1 && pen.measureText(cut).width > width);
  return cut;
}

class Graph {
  // `told`: { label(id), line(id), state(id), choose(id), open(id) }
  constructor(place, vertices, drawing, chain, told) {
    Object.assign(this, { place, vertices, drawing, told, x: 0, y: 0, scale: 1, chosen: -1, hits: new Set(), shown: new Map() });
    this.chain = new Set(chain);
    this.steps = new Set(chain.slice(1).map((id, at) => chain[at] + ":" + id));
    this.camera = shape("g", {});
    this.svg = shape("svg", { role: "group", "aria-roledescription": "graph" }, this.camera);
    this.svg.setAttribute("aria-label", `graph of ${vertices.length} steps; arrow keys go along it, Enter opens a step`);
    this.lanes = shape("g", { "aria-hidden": "true" });
    this.lines = shape("path", { class: "line" });
    this.heads = shape("path", { class: "head" });
    this.hotLines = shape("path", { class: "line hot" });
    this.hotHeads = shape("path", { class: "head hot" });
    this.ownLines = shape("path", { class: "line own" });
    this.ownHeads = shape("path", { class: "head own" });
    this.far = shape("path", { class: "far" });
    this.farHits = shape("path", { class: "far hit" });
    this.boxes = shape("g", {});
    const edges = shape("g", { "aria-hidden": "true" }, this.lines, this.heads, this.hotLines, this.hotHeads, this.ownLines, this.ownHeads);
    this.camera.append(this.lanes, edges, this.far, this.farHits, this.boxes);
    for (const lane of drawing.lanes) {
      const box = shape("rect", { class: "lane", x: lane.x, y: lane.y, width: lane.width, height: lane.height, rx: 14 });
      this.lanes.append(box, shape("text", { class: "lane-name", x: lane.x + 18, y: lane.y + 27 }, lane.name));
    }
    place.append(this.svg);
    this.index();
    this.listen();
  }

  // Buckets of boxes and edges by place, so that a view asks only for what is near.
  index() {
    this.size = 1200;
    this.grid = new Map();
    const put = (kind, number, x0, y0, x1, y1) => {
      for (let i = Math.floor(x0 / this.size); i <= Math.floor(x1 / this.size); i++) {
        for (let j = Math.floor(y0 / this.size); j <= Math.floor(y1 / this.size); j++) {
          const key = i + ":" + j;
          if (!this.grid.has(key)) this.grid.set(key, { boxes: [], edges: [] });
          this.grid.get(key)[kind].push(number);
        }
      }
    };
    this.drawing.boxes.forEach((box, id) => put("boxes", id, box.x, box.y, box.x + BOX.width, box.y + BOX.height));
    this.long = [];
    this.drawing.edges.forEach((edge, number) => {
      const xs = edge.points.filter((_, at) => at % 2 === 0), ys = edge.points.filter((_, at) => at % 2 === 1);
      const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
      if ((x1 - x0) * (y1 - y0) > 60 * this.size * this.size) this.long.push(number);
      else put("edges", number, x0, y0, x1, y1);
    });
  }

  view() {
    const box = this.svg.getBoundingClientRect();
    return { left: -this.x / this.scale, top: -this.y / this.scale, right: (box.width - this.x) / this.scale, bottom: (box.height - this.y) / this.scale };
  }

  inView() {
    const { left, top, right, bottom } = this.view();
    const cells = (Math.floor(right / this.size) - Math.floor(left / this.size) + 1) * (Math.floor(bottom / this.size) - Math.floor(top / this.size) + 1);
    const found = { boxes: new Set(), edges: new Set(this.long.slice(0, 2000)) };
    const take = (cell) => { cell.boxes.forEach((id) => found.boxes.add(id)); cell.edges.forEach((number) => found.edges.add(number)); };
    if (cells > this.grid.size) this.grid.forEach(take);
    else for (let i = Math.floor(left / this.size); i <= Math.floor(right / this.size); i++) {
      for (let j = Math.floor(top / this.size); j <= Math.floor(bottom / this.size); j++) if (this.grid.has(i + ":" + j)) take(this.grid.get(i + ":" + j));
    }
    return found;
  }

  draw() {
    if (this.drawn) return;
    this.drawn = requestAnimationFrame(() => { this.drawn = 0; this.paint(); });
  }

  paint() {
    this.camera.setAttribute("transform", `translate(${this.x} ${this.y}) scale(${this.scale})`);
    const found = this.inView();
    const near = this.scale >= NEAR ? found.boxes.size <= 2 * MANY : found.boxes.size <= 60;
    const wanted = near ? found.boxes : new Set();
    if (this.chosen >= 0) wanted.add(this.chosen);
    if (!wanted.size && this.vertices.length) wanted.add(this.entry());
    for (const [id, element] of this.shown) if (!wanted.has(id)) { element.remove(); this.shown.delete(id); }
    for (const id of [...wanted].sort((a, b) => a - b)) if (!this.shown.has(id)) this.boxes.append(this.box(id));
    for (const [id, element] of this.shown) this.mark(id, element);
    const key = near ? "near" : "far:" + this.hits.size;
    if (key !== this.farKey || !near) {
      const rects = (ids) => ids.map((id) => `M${this.drawing.boxes[id].x} ${this.drawing.boxes[id].y}h${BOX.width}v${BOX.height}h${-BOX.width}z`).join("");
      const seen = near ? [] : [...found.boxes];
      this.far.setAttribute("d", rects(seen.filter((id) => !this.hits.has(id))));
      this.farHits.setAttribute("d", rects(seen.filter((id) => this.hits.has(id))));
      this.farKey = key;
    }
    this.edges(found.edges, near);
  }

  edges(numbers, near) {
    const d = { line: [], head: [], hotLine: [], hotHead: [], ownLine: [], ownHead: [] };
    const step = Math.max(1, Math.ceil(numbers.size / 4000));
    let at = 0;
    for (const number of numbers) {
      const edge = this.drawing.edges[number];
      const own = edge.from === this.chosen || edge.to === this.chosen;
      const hot = this.steps.has(edge.from + ":" + edge.to);
      if (at++ % step && !own && !hot) continue;
      const kind = hot ? "hot" : own ? "own" : "";
      d[kind ? kind + "Line" : "line"].push(curve(edge.points, near));
      if (near) {
        const [x, y] = edge.points.slice(-2);
        d[kind ? kind + "Head" : "head"].push(`M${x} ${y}l-9 -4.5v9z`);
      }
    }
    this.lines.setAttribute("d", d.line.join(""));
    this.heads.setAttribute("d", d.head.join(""));
    this.hotLines.setAttribute("d", d.hotLine.join(""));
    this.hotHeads.setAttribute("d", d.hotHead.join(""));
    this.ownLines.setAttribute("d", d.ownLine.join(""));
    this.ownHeads.setAttribute("d", d.ownHead.join(""));
  }

  box(id) {
    const { x, y } = this.drawing.boxes[id], vertex = this.vertices[id];
    const element = shape("g", { role: "button", transform: `translate(${x} ${y})`, "data-id": id, "aria-label": this.told.label(id) });
    element.append(
      shape("rect", { class: "card", width: BOX.width, height: BOX.height, rx: 10 }),
      shape("rect", { class: "strip " + vertex.kind, x: 0, y: 12, width: 5, height: BOX.height - 24, rx: 2.5 }),
      shape("text", { class: "number", x: BOX.width - 12, y: 22, "text-anchor": "end" }, String(id + 1)),
      shape("text", { class: "name", x: 18, y: 26 }, shortened(vertex.name, BOX.width - 58)),
      shape("text", { class: "line-2", x: 18, y: 45 }, this.told.line(id)),
      shape("title", {}, vertex.name),
    );
    const state = this.told.state(id);
    if (state) element.append(shape("circle", { class: "state " + state, cx: BOX.width - 17, cy: 41, r: 5 }));
    this.shown.set(id, element);
    return element;
  }

  mark(id, element) {
    const classes = ["box"];
    if (id === this.chosen) classes.push("chosen");
    if (this.chain.has(id)) classes.push("hot");
    if (this.hits.has(id)) classes.push("hit");
    element.setAttribute("class", classes.join(" "));
    element.setAttribute("tabindex", id === (this.chosen >= 0 ? this.chosen : this.entry()) ? "0" : "-1");
    element.setAttribute("aria-pressed", String(id === this.chosen));
  }

  entry() {
    return this.told.entry;
  }

  listen() {
    const pointers = new Map();
    let moved = 0;
    const spread = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
    this.svg.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      moved = 0;
    });
    this.svg.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const now = { x: event.clientX, y: event.clientY };
      const far = pointers.size === 2 ? spread() : 0;
      pointers.set(event.pointerId, now);
      moved += Math.abs(now.x - before.x) + Math.abs(now.y - before.y);
      if (moved > 4 && !this.svg.hasPointerCapture(event.pointerId)) this.svg.setPointerCapture(event.pointerId);
      if (far) this.zoom(spread() / far, now.x, now.y);
      else if (moved > 4) { this.x += now.x - before.x; this.y += now.y - before.y; this.fitted = false; this.draw(); }
    });
    for (const end of ["pointerup", "pointercancel"]) this.svg.addEventListener(end, (event) => pointers.delete(event.pointerId));
    this.svg.addEventListener("click", (event) => {
      if (moved > 4) return;
      const element = event.target.closest("[data-id]");
      const id = element ? Number(element.dataset.id) : this.at(event.clientX, event.clientY);
      if (id >= 0) { this.told.choose(id); this.told.open(id); }
    });
    this.svg.addEventListener("focusin", (event) => {
      const element = event.target.closest("[data-id]");
      if (element && Number(element.dataset.id) !== this.chosen) this.told.choose(Number(element.dataset.id));
    });
    this.svg.addEventListener("wheel", (event) => {
      if (!(event.ctrlKey || event.metaKey || this.svg.contains(document.activeElement))) return;
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018)), event.clientX, event.clientY);
    }, { passive: false });
    new ResizeObserver(() => { if (this.fitted) this.fit(); else this.draw(); }).observe(this.svg);
  }

  // The box under a point of the window.
  at(clientX, clientY) {
    const corner = this.svg.getBoundingClientRect();
    const x = (clientX - corner.left - this.x) / this.scale, y = (clientY - corner.top - this.y) / this.scale;
    const cell = this.grid.get(Math.floor(x / this.size) + ":" + Math.floor(y / this.size));
    const inside = (id) => { const box = this.drawing.boxes[id]; return x >= box.x && x <= box.x + BOX.width && y >= box.y && y <= box.y + BOX.height; };
    const found = cell ? cell.boxes.find(inside) : undefined;
    return found === undefined ? -1 : found;
  }

  zoom(factor, clientX, clientY) {
    const corner = this.svg.getBoundingClientRect();
    const x = (clientX === undefined ? corner.left + corner.width / 2 : clientX) - corner.left;
    const y = (clientY === undefined ? corner.top + corner.height / 2 : clientY) - corner.top;
    const scale = Math.min(3, Math.max(0.005, this.scale * factor));
    this.x = x - (x - this.x) * (scale / this.scale);
    this.y = y - (y - this.y) * (scale / this.scale);
    this.scale = scale;
    this.fitted = false;
    this.draw();
  }

  fit() {
    this.fitted = true;
    const { width, height: all } = this.svg.getBoundingClientRect();
    // The legend stands at the bottom.
    const height = Math.max(1, all - 34);
    this.scale = Math.min(1.15, Math.max(0.005, Math.min(width / this.drawing.width, height / this.drawing.height)));
    this.x = (width - this.drawing.width * this.scale) / 2;
    this.y = (height - this.drawing.height * this.scale) / 2;
    this.draw();
  }

  // Makes a vertex the chosen one and brings it into view.
  choose(id, focus) {
    this.chosen = id;
    if (id >= 0) {
      const { x, y } = this.drawing.boxes[id], seen = this.view();
      if (this.scale < NEAR && this.vertices.length > 60) { this.scale = 0.8; this.fitted = false; }
      if (x < seen.left || x + BOX.width > seen.right || y < seen.top || y + BOX.height > seen.bottom || seen.right - seen.left > 5000) {
        const { width, height } = this.svg.getBoundingClientRect();
        this.x = width / 2 - (x + BOX.width / 2) * this.scale;
        this.y = height / 2 - (y + BOX.height / 2) * this.scale;
        this.fitted = false;
      }
    }
    this.paint();
    if (focus && this.shown.has(id)) this.shown.get(id).focus({ preventScroll: true });
  }

  // The vertex that an arrow key leads to.
  beside(id, key) {
    const { inputs, outputs, boxes } = this.drawing;
    if (key === "ArrowLeft" || key === "ArrowRight") {
      const next = key === "ArrowLeft" ? inputs[id] : outputs[id];
      const chained = next.find((other) => this.chain.has(other));
      return chained !== undefined ? chained : next.length ? next[0] : id;
    }
    const down = key === "ArrowDown" ? 1 : -1;
    let best = id, least = Infinity;
    boxes.forEach((box, other) => {
      const dy = (box.y - boxes[id].y) * down;
      const far = dy + 2.5 * Math.abs(box.x - boxes[id].x);
      if (dy > 1 && far < least) { best = other; least = far; }
    });
    return best;
  }
}

function curve(line, near) {
  let d = `M${line[0]} ${line[1]}`;
  for (let at = 2; at < line.length; at += 2) {
    const [x0, y0, x1, y1] = [line[at - 2], line[at - 1], line[at], line[at + 1]];
    const bend = Math.max(30, (x1 - x0) / 2);
    d += !near || y0 === y1 ? `L${x1} ${y1}` : `C${x0 + bend} ${y0} ${x1 - bend} ${y1} ${x1} ${y1}`;
  }
  return d;
}

// The live view of a run: lays out what the kernel says, and lets time go on.
//
// The kernel sends one `state` when the view opens, then news on top of it (see
// nbdurable/timeline.py) and, when there is no news, a beat. All words come from
// there; here are layout, ticking clocks, and the one thing the kernel can't say:
// that it is gone. What a person asks for goes back as `{do: ...}`.

const SILENCE = 5000; // ms without news after which the kernel may be gone
const UNHEARD = 3000; // ms without an answer after which the kernel doesn't listen
const DEAF = "This kernel answers when the cell has ended; the stop button ■ suspends the run.";
const TICK = 200; // ms
const SPOKEN = 5000; // ms between two lines for screen readers
const FRESH = 1000; // ms after which an open step's detail is asked for again
const LINKS = 60; // so many dependencies are drawn at once; more are drawn for one row

const MOVING = new Set(["running", "retrying"]);
const COLUMNS = ["Step", "State", "Timeline", "Time"];

function element(tag, classes = "", text = "") {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  if (text) made.textContent = text;
  return made;
}

function button(classes, text, onClick) {
  const made = element("button", `nbd-button ${classes}`, text);
  made.type = "button";
  made.addEventListener("click", onClick);
  return made;
}

// Writing only what changed keeps selections, and spares the layout.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function style(node, classes) {
  if (node.className !== classes) node.className = classes;
}

function hide(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

function duration(seconds) {
  if (seconds < 59.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  const whole = Math.round(seconds);
  const two = (n) => String(n).padStart(2, "0");
  if (whole >= 86400) return `${Math.floor(whole / 86400)} d ${two(Math.floor((whole % 86400) / 3600))} h`;
  if (whole >= 3600) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
  return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
}

const slug = (state) => (state ?? "").replaceAll(" ", "-");

// --- What the kernel said ---------------------------------------------------------

const stores = new WeakMap();

// One for each model, whatever number of views it has. It listens from the model's
// beginning, so that no news is lost before the first view is drawn.
function storeOf(model) {
  let store = stores.get(model);
  if (store === undefined) {
    store = makeStore(model);
    stores.set(model, store);
  }
  return store;
}

function makeStore(model) {
  const store = {
    head: {},
    rows: new Map(),
    order: [],
    seq: -1,
    told: 0, // the kernel's time in the last message, in s
    heard: 0, // ours when it came, in ms
    asked: false, // for a state, since some news were dropped
    listeners: new Set(),
    ask: (content) => model.send(content),
  };
  const tell = (what, content) => store.listeners.forEach((listener) => listener[what]?.(content));
  const hear = (now) => {
    store.told = Math.max(store.told, now ?? 0);
    store.heard = performance.now();
  };
  const begin = (state) => {
    if (state?.head === undefined || state.seq < store.seq) return;
    store.rows = new Map(Object.entries(state.rows));
    store.asked = false;
    take(state);
  };
  const take = (news) => {
    store.head = news.head;
    store.seq = news.seq;
    for (const [key, row] of Object.entries(news.rows)) store.rows.set(key, row);
    if (news.order !== undefined) {
      store.order = news.order;
      const kept = new Set(store.order);
      for (const key of store.rows.keys()) if (!kept.has(key)) store.rows.delete(key);
    }
    hear(news.head.now);
    tell("news");
  };
  begin(model.get("state"));
  model.on("change:state", () => begin(model.get("state")));
  model.on("msg:custom", (message) => {
    if (message.state !== undefined) begin(message.state);
    else if (message.news !== undefined) {
      if (message.news.seq === store.seq + 1) take(message.news);
      else if (message.news.seq > store.seq && !store.asked) {
        store.asked = true;
        store.ask({ do: "state" });
      }
    } else if (message.beat !== undefined) hear(message.beat);
    else tell("answer", message);
  });
  return store;
}

// --- The line above the table -------------------------------------------------------

function makeHead(root, onSuspend) {
  const line = element("div", "nbd-head");
  const name = element("strong", "nbd-name");
  const status = element("span", "nbd-status");
  const said = element("span", "nbd-said");
  const time = element("span", "nbd-time");
  const suspend = button("nbd-suspend", "Suspend", onSuspend);
  suspend.title = "Stop here; running the cell again goes on from here";
  const silence = element("div", "nbd-silence");
  silence.hidden = true;
  const answer = element("div", "nbd-answer");
  answer.setAttribute("role", "status");
  // Screen readers get their own line: the visible one changes too often to be read out.
  const spoken = element("div", "nbd-spoken");
  spoken.setAttribute("role", "status");
  spoken.setAttribute("aria-live", "polite");
  line.append(name, status, said, time, suspend);
  root.append(line, silence, answer, spoken);
  return { name, status, said, time, suspend, silence, answer, spoken, spokenAt: -SPOKEN };
}

function showHead(parts, head) {
  write(parts.name, head.name);
  write(parts.status, head.status);
  style(parts.status, `nbd-status nbd-${slug(head.status)}`);
  write(parts.said, head.said);
  hide(parts.suspend, !head.live || head.deaf);
  if (head.deaf) write(parts.answer, head.live ? DEAF : "");
}

function speak(parts, head, silent) {
  const now = performance.now();
  if (!silent && head.live && now - parts.spokenAt < SPOKEN) return;
  write(parts.spoken, silent ? `${head.name}: no news from the kernel` : `${head.name} ${head.status}: ${head.said}`);
  parts.spokenAt = now;
}

// --- The table ----------------------------------------------------------------------

function makeTable(root) {
  const scroll = element("div", "nbd-scroll");
  const table = element("table", "nbd-table");
  table.setAttribute("role", "treegrid");
  const head = element("tr");
  head.setAttribute("role", "row");
  for (const column of COLUMNS) {
    const cell = element("th", `nbd-column-${column.toLowerCase()}`, column);
    cell.scope = "col";
    cell.setAttribute("role", "columnheader");
    head.append(cell);
  }
  const axis = element("div", "nbd-axis");
  axis.setAttribute("aria-hidden", "true");
  head.children[2].append(axis);
  const thead = element("thead");
  thead.append(head);
  const body = element("tbody");
  table.append(thead, body);
  const links = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  links.setAttribute("class", "nbd-links");
  links.setAttribute("aria-hidden", "true");
  scroll.append(table, links);
  const more = element("div", "nbd-rest");
  const notes = element("ul", "nbd-notes");
  root.append(scroll, more, notes);
  return { scroll, table, body, axis, links, more, notes, rows: new Map(), span: 0, focus: "", pointed: "" };
}

function makeRow(key) {
  const row = element("tr", "nbd-row");
  row.dataset.key = key;
  row.setAttribute("role", "row");
  row.tabIndex = -1;
  const label = element("td", "nbd-label");
  const twist = element("span", "nbd-twist");
  twist.setAttribute("aria-hidden", "true");
  const code = element("code");
  const chosen = element("span", "nbd-chosen");
  const mark = element("span", "nbd-mark");
  const deaths = element("span", "nbd-deaths");
  const remark = element("div", "nbd-remark");
  const tip = element("div", "nbd-tip");
  tip.setAttribute("role", "tooltip");
  label.append(twist, code, chosen, mark, deaths, remark, tip);
  const state = element("td", "nbd-state");
  const glyph = element("span", "nbd-glyph");
  glyph.setAttribute("aria-hidden", "true");
  const word = element("span", "nbd-word");
  const counts = element("div", "nbd-counts");
  counts.setAttribute("aria-hidden", "true");
  state.append(glyph, word, counts);
  const lane = element("td", "nbd-lane");
  const track = element("div", "nbd-track");
  lane.append(track);
  const time = element("td", "nbd-number");
  for (const cell of [label, state, lane, time]) cell.setAttribute("role", "gridcell");
  row.append(label, state, lane, time);
  return { row, twist, code, chosen, mark, deaths, remark, tip, glyph, word, counts, track, time, said: null };
}

function showRow(parts, said) {
  if (parts.said === said) return;
  parts.said = said;
  const { row } = parts;
  const fates = `${said.won ? " nbd-won" : ""}${said.lost ? " nbd-lost" : ""}`;
  style(row, `nbd-row nbd-${slug(said.state) || said.kind}${fates}`);
  row.dataset.kind = said.kind;
  if (said.place !== undefined) row.dataset.place = said.place;
  row.style.setProperty("--nbd-depth", said.depth ?? 0);
  row.setAttribute("aria-level", (said.depth ?? 0) + 1);
  if (said.key === undefined || said.kind === "more") row.removeAttribute("aria-expanded");
  else row.setAttribute("aria-expanded", String(Boolean(said.open)));
  write(parts.twist, said.kind === "more" ? "…" : said.key === undefined ? "" : said.open ? "▾" : "▸");
  write(parts.code, said.label);
  write(parts.chosen, said.chosen ? `★ ${said.chosen}` : "");
  write(parts.mark, said.won ? "★ won" : said.lost ? "lost" : "");
  write(parts.deaths, said.deaths ? `☠ ${said.deaths} deaths` : "");
  const told = said.remark && said.remark !== "new" && said.remark !== "replayed" ? said.remark : "";
  write(parts.remark, [said.reached, told].filter(Boolean).join(", "));
  write(parts.tip, tipOf(said));
  write(parts.glyph, said.glyph ?? "");
  write(parts.word, said.state ?? "");
  showCounts(parts.counts, said.counts ?? []);
  showBars(parts.track, said);
  if (said.since === undefined) write(parts.time, said.left ?? said.time ?? "");
}

function tipOf(said) {
  const parts = [];
  if (said.why) parts.push(said.why === "replayed" ? "replayed: its outcome was saved" : `ran because: ${said.why}`);
  if (said.attempts) parts.push(`${said.attempts} attempts`);
  if (said.deaths) parts.push(`it was in flight at ${said.deaths} deaths of the kernel, and runs alone`);
  return parts.join("; ");
}

function showCounts(list, counts) {
  hide(list, counts.length === 0);
  list.replaceChildren(
    ...counts.map(([state, number]) => {
      const part = element("span", `nbd-part nbd-${slug(state)}`);
      part.style.flexGrow = number;
      return part;
    }),
  );
}

function showBars(track, said) {
  const bars = (said.bars ?? []).map(([begin, end, how]) => {
    const bar = element("span", `nbd-bar nbd-${slug(how)}`);
    bar.style.setProperty("--nbd-begin", begin);
    bar.style.setProperty("--nbd-end", end ?? "var(--nbd-now)");
    return bar;
  });
  if (said.mark !== undefined) {
    const mark = element("span", "nbd-saved", "↩");
    mark.style.setProperty("--nbd-begin", said.mark);
    bars.push(mark);
  }
  track.replaceChildren(...bars);
}

function showTable(table, store) {
  const { head } = store;
  table.table.setAttribute("aria-label", `Steps of ${head.name}`);
  table.table.setAttribute("aria-rowcount", store.order.length + 1);
  const gone = new Set(table.rows.keys());
  let next = table.body.firstElementChild;
  for (const key of store.order) {
    const said = store.rows.get(key);
    if (said === undefined) continue;
    gone.delete(key);
    let parts = table.rows.get(key);
    if (parts === undefined) {
      parts = makeRow(key);
      table.rows.set(key, parts);
    }
    showRow(parts, said);
    if (parts.row === next) next = next.nextElementSibling;
    else table.body.insertBefore(parts.row, next);
  }
  for (const key of gone) {
    table.rows.get(key).row.remove();
    table.rows.delete(key);
  }
  // One row can be tabbed to; the arrow keys go on from there.
  if (!table.rows.has(table.focus)) table.focus = store.order[0] ?? "";
  for (const [key, parts] of table.rows) parts.row.tabIndex = key === table.focus ? 0 : -1;
  write(table.more, head.cut ? `… ${head.cut.toLocaleString("en")} more rows; close some to see them` : "");
  hide(table.scroll, store.order.length === 0);
  table.notes.replaceChildren(...head.notes.map((note) => element("li", "", note)));
  showLinks(table, store);
}

// --- What was passed on: from the end of a step to the begin of the one that got it ----

function showLinks(table, store) {
  const links = [];
  for (const [key, said] of store.rows) {
    for (const input of said.inputs ?? []) {
      if (table.rows.has(String(input)) && table.rows.has(key)) links.push([String(input), key]);
    }
  }
  const focused = table.scroll.contains(document.activeElement) ? table.focus : "";
  const isNear = (ends) => ends.includes(table.pointed) || ends.includes(focused);
  // A line to what has not begun would lead nowhere: it is drawn where somebody looks.
  const begun = (ends) => store.rows.get(ends[1]).bars !== undefined;
  const shown = links.filter((ends) => isNear(ends) || (links.length <= LINKS && begun(ends)));
  table.links.replaceChildren();
  if (shown.length === 0) return;
  const frame = table.table.getBoundingClientRect();
  table.links.setAttribute("width", frame.width);
  table.links.setAttribute("height", frame.height);
  for (const [from, to] of shown) {
    const start = table.rows.get(from).track.lastElementChild?.getBoundingClientRect();
    const lane = table.rows.get(to).track.getBoundingClientRect();
    const end = table.rows.get(to).track.firstElementChild?.getBoundingClientRect();
    if (start === undefined) continue;
    const x = Math.max(start.right - frame.left - 2, 0);
    const y = start.top + start.height / 2 - frame.top;
    const ox = end === undefined ? x : end.left - frame.left;
    const oy = lane.top + lane.height / 2 - frame.top;
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", `M${x} ${y} V${oy} H${Math.max(ox, x + 6)}`);
    path.setAttribute("class", isNear([from, to]) ? "nbd-link nbd-near" : "nbd-link");
    table.links.append(path);
  }
}

// --- The time axis ----------------------------------------------------------------------

// The axis is longer than what passed, and grows in steps: bars grow, and don't shrink all the time.
function spanFor(elapsed, live) {
  if (!live) return Math.max(elapsed, 0.001);
  for (let power = 0.1; ; power *= 10) {
    for (const step of [1, 1.5, 2, 3, 5, 7.5]) if (step * power > elapsed * 1.02) return step * power;
  }
}

function tickOf(span) {
  const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400];
  return steps.find((step) => span / step <= 5) ?? span / 4;
}

function axisLabel(seconds) {
  if (seconds < 1) return seconds === 0 ? "0" : `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${+seconds.toFixed(1)} s`;
  if (seconds < 3600) return seconds % 60 ? `${Math.floor(seconds / 60)}:${String(Math.round(seconds % 60)).padStart(2, "0")}` : `${seconds / 60} min`;
  return `${+(seconds / 3600).toFixed(1)} h`;
}

function showAxis(table, root, elapsed, live) {
  const span = spanFor(elapsed, live);
  root.style.setProperty("--nbd-now", elapsed);
  if (span === table.span) return false;
  table.span = span;
  root.style.setProperty("--nbd-span", span);
  const ticks = [];
  const step = tickOf(span);
  for (let at = 0; at <= span * 0.95; at += step) {
    const tick = element("span", "nbd-tick", axisLabel(at));
    tick.style.left = `${(at / span) * 100}%`;
    ticks.push(tick);
  }
  table.axis.replaceChildren(...ticks);
  return true;
}

// --- One step, looked at ------------------------------------------------------------------

function makeDetail(root, onClose, onCancel, onRetry) {
  const panel = element("section", "nbd-detail");
  panel.hidden = true;
  const head = element("div", "nbd-detail-head");
  const name = element("code", "nbd-detail-name");
  const cancel = button("nbd-cancel", "Cancel step", onCancel);
  const retry = button("nbd-retry", "Retry now", onRetry);
  const close = button("nbd-close", "Close", onClose);
  head.append(name, cancel, retry, close);
  const facts = element("dl", "nbd-facts");
  panel.append(head, facts);
  root.append(panel);
  return { panel, name, cancel, retry, close, facts, told: "", place: null, asked: 0, answered: true };
}

function showDetail(parts, detail) {
  const told = JSON.stringify(detail);
  if (told === parts.told) return;
  parts.told = told;
  const items = [];
  for (const [term, text, wide] of detail.facts ?? []) {
    const value = element("dd");
    if (wide) {
      const block = element("pre", "nbd-block", text);
      block.tabIndex = 0;
      value.append(block);
    } else value.textContent = text;
    items.push(element("dt", "", term), value);
  }
  const ends = [...parts.facts.querySelectorAll("pre")].map((block) => block.scrollTop);
  parts.facts.replaceChildren(...items);
  [...parts.facts.querySelectorAll("pre")].forEach((block, at) => {
    block.scrollTop = ends[at] ?? 0;
  });
}

// --- The view -----------------------------------------------------------------------------

function render({ model, el }) {
  const store = storeOf(model);
  const root = element("section", "nbd-view");
  el.append(root);
  let waiting = 0; // since when an answer is waited for

  const ask = (content) => {
    waiting ||= performance.now();
    store.ask(content);
  };
  const head = makeHead(root, () => ask({ do: "suspend" }));
  const table = makeTable(root);
  const detail = makeDetail(
    root,
    () => look(null),
    () => ask({ do: "cancel", place: detail.place }),
    () => ask({ do: "retry", place: detail.place }),
  );

  const look = (key) => {
    const said = store.rows.get(key);
    const back = detail.place;
    detail.place = said?.place ?? null;
    detail.told = "";
    detail.facts.replaceChildren();
    hide(detail.panel, detail.place === null);
    if (detail.place === null) {
      if (back !== null) table.rows.get(String(back))?.row.focus();
      return;
    }
    refresh(true);
    showButtons();
  };
  const refresh = (now) => {
    if (detail.place === null) return;
    if (!now && (waiting || performance.now() - detail.asked < FRESH)) return;
    detail.asked = performance.now();
    ask({ do: "detail", place: detail.place });
  };
  const showButtons = () => {
    const said = store.rows.get(String(detail.place));
    if (said === undefined) return;
    detail.panel.setAttribute("aria-label", `Detail of ${said.label}`);
    write(detail.name, said.label);
    hide(detail.cancel, !store.head.live || store.head.deaf || !(MOVING.has(said.state) || said.state === "waiting"));
    hide(detail.retry, !store.head.live || store.head.deaf || said.state !== "retrying");
  };
  const toggle = (key, open) => {
    const said = store.rows.get(key);
    if (said?.key === undefined) return false;
    ask({ do: open ?? !said.open ? "open" : "close", key: said.key });
    return true;
  };
  const focus = (key) => table.rows.get(key)?.row.focus();
  const act = (key) => {
    const said = store.rows.get(key);
    if (said?.kind === "more") toggle(key, true);
    else if (said?.place === undefined) toggle(key);
    else look(detail.place === said.place ? null : key);
  };

  table.body.addEventListener("click", (event) => {
    const key = event.target.closest("tr")?.dataset.key;
    if (key === undefined || String(document.getSelection())) return;
    focus(key);
    if (event.target.closest(".nbd-twist") && toggle(key)) return;
    act(key);
  });
  table.body.addEventListener("focusin", (event) => {
    const key = event.target.closest("tr").dataset.key;
    for (const [each, parts] of table.rows) parts.row.tabIndex = each === key ? 0 : -1;
    table.focus = key;
    showLinks(table, store);
  });
  table.body.addEventListener("pointerover", (event) => {
    table.pointed = event.target.closest("tr")?.dataset.key ?? "";
    showLinks(table, store);
  });
  table.body.addEventListener("pointerleave", () => {
    table.pointed = "";
    showLinks(table, store);
  });
  table.body.addEventListener("keydown", (event) => {
    const at = store.order.indexOf(table.focus);
    const moves = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: store.order.length - 1 };
    if (event.key in moves) focus(store.order[moves[event.key]]);
    else if (event.key === "ArrowRight") toggle(table.focus, true);
    else if (event.key === "ArrowLeft") toggle(table.focus, false);
    else if (event.key === "Enter" || event.key === " ") act(table.focus);
    else if (event.key === "Escape") look(null);
    else return;
    // The notebook has these keys, too: they would move to another cell.
    event.preventDefault();
    event.stopPropagation();
  });
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && detail.place !== null) {
      look(null);
      event.stopPropagation();
    }
  });

  const clock = () => {
    if (store.head.name === undefined) return;
    const quiet = performance.now() - store.heard;
    const silent = store.head.live && quiet > SILENCE;
    root.classList.toggle("nbd-silent", silent);
    hide(head.silence, !silent);
    if (silent) {
      write(
        head.silence,
        `no news from the kernel for ${Math.floor(quiet / 1000)} s: ` +
          "if it died, run the notebook again to resume",
      );
    }
    const now = store.told + (silent ? 0 : quiet / 1000);
    const elapsed = store.head.live ? Math.max(0, now - store.head.started) : store.head.elapsed;
    const { spared, left } = store.head;
    write(head.time, [duration(elapsed), left, spared && `saved ${spared}`].filter(Boolean).join("; "));
    if (showAxis(table, root, elapsed, store.head.live)) showLinks(table, store);
    for (const parts of table.rows.values()) tick(parts, now);
    if (waiting && performance.now() - waiting > UNHEARD && !silent) {
      write(head.answer, DEAF);
    }
    const said = store.rows.get(String(detail.place));
    if (said !== undefined && !silent && store.head.live && said.state !== "waiting") refresh(false);
    speak(head, store.head, silent);
  };
  const tick = (parts, now) => {
    const { since, again, state } = parts.said;
    if (since === undefined) return;
    write(parts.time, duration(now - since));
    const wait = again === undefined ? 0 : again - now;
    write(parts.word, wait > 0 ? `retrying in ${Math.ceil(wait)} s` : state);
  };
  const listener = {
    news: () => {
      if (store.head.name === undefined) return;
      showHead(head, store.head);
      showAxis(table, root, Math.max(0, store.head.elapsed), store.head.live);
      showTable(table, store);
      if (detail.place !== null) {
        showButtons();
        const said = store.rows.get(String(detail.place));
        if (said !== undefined && !MOVING.has(said.state)) refresh(false);
      }
      clock();
    },
    answer: (message) => {
      waiting = 0;
      if (message.said !== undefined) write(head.answer, message.said);
      else if (head.answer.textContent === DEAF && !store.head.deaf) write(head.answer, "");
      if (message.detail !== undefined && message.place === detail.place) showDetail(detail, message.detail);
    },
  };

  listener.news();
  store.listeners.add(listener);
  const ticking = setInterval(clock, TICK);
  return () => {
    clearInterval(ticking);
    store.listeners.delete(listener);
  };
}

export default { initialize: ({ model }) => void storeOf(model), render };

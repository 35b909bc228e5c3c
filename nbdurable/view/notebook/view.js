// The live view of a run: lays out what the kernel says, and lets time go on.
//
// The kernel sends one `state` when the view opens, then news on top of it (see
// nbdurable/view/timeline.py) and, when there is no news, a beat. All words come from
// there; here are layout, ticking clocks, and the one thing the kernel can't say:
// that it is gone. What a person asks for goes back as `{do: ...}`.

const SILENCE = 5000; // ms without news after which the kernel may be gone
const UNHEARD = 3000; // ms without an answer after which the kernel doesn't listen
const DEAF = "This kernel answers when the cell has ended; the stop button ■ stops the run, and running the cell again resumes it.";
const TICK = 200; // ms
const SPOKEN = 5000; // ms between two lines for screen readers
const GONE = new Set(["dead", "restarting", "autorestarting", "terminating"]); // what a kernel is called that ended
const RESUME = "run the notebook again to resume: what is saved is not run again";
const LEFT = 1500; // ms after the end in which a view is taken off its page
const TAIL = 14; // so many characters at a label's end always show
const FRESH = 1000; // ms after which an open step's detail is asked for again
const BESIDE = 1000; // px of width from which a step's detail stands beside the table
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
    clocked: "", // whose time `elapsed` is
    elapsed: 0, // what was shown last, in s: it never runs backwards
    shown: 0, // the latest kernel's time that was shown, which never goes back
    gone: false, // the kernel has ended
    summary: undefined, // what the run left, for a page that was loaded in its middle
    asked: false, // for a state, since some news were dropped
    listeners: new Set(),
    ask: (content) => model.send(content),
  };
  const tell = (what, content) => store.listeners.forEach((listener) => listener[what]?.(content));
  const hear = (now) => {
    store.gone = false;
    store.told = Math.max(store.told, now ?? 0);
    store.heard = performance.now();
  };
  const begin = (state) => {
    if (state?.head === undefined || state.seq < store.seq) return;
    store.rows = new Map(Object.entries(state.rows));
    store.summary = state.summary || store.summary;
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
    else if (message.summary !== undefined) {
      store.summary = message.summary;
      tell("news");
    } else tell("answer", message);
  });
  watchKernel(model, () => {
    store.gone = Boolean(store.head.live);
    tell("news");
  });
  return store;
}

// A front end that tells how its kernel is saves five seconds of doubt; others only fall silent.
function watchKernel(model, onGone) {
  const kernel = model.widget_manager?.kernel;
  kernel?.statusChanged?.connect?.((_, status) => {
    if (GONE.has(status)) onGone();
  });
}

// --- The line above the table -------------------------------------------------------

function makeHead(root, onSuspend, onRedo) {
  const line = element("div", "nbd-head");
  const name = element("strong", "nbd-name");
  const status = element("span", "nbd-status");
  const said = element("span", "nbd-said");
  const time = element("span", "nbd-time");
  const redo = button("nbd-redo", "Retry all failed", onRedo);
  redo.setAttribute("aria-label", "Retry all failed steps when the cell is run again");
  const suspend = button("nbd-suspend", "Stop", onSuspend);
  suspend.setAttribute("aria-label", "Stop the run; running the cell again resumes it");
  const progress = element("div", "nbd-progress");
  progress.setAttribute("aria-hidden", "true");
  const silence = element("div", "nbd-silence");
  silence.hidden = true;
  const answer = element("div", "nbd-answer");
  answer.setAttribute("role", "status");
  // Screen readers get their own line: the visible one changes too often to be read out.
  const spoken = element("div", "nbd-spoken");
  spoken.setAttribute("role", "status");
  spoken.setAttribute("aria-live", "polite");
  line.append(name, status, said, time, redo, suspend);
  const top = element("div", "nbd-top");
  top.append(line, progress, silence, answer);
  root.append(top, spoken);
  return { name, status, said, time, redo, suspend, progress, counts: "", silence, answer, spoken, spokenAt: -SPOKEN };
}

// How much is done, as chips that say it and a bar that shows it.
function showTally(parts, head) {
  const counts = JSON.stringify(head.counts ?? []);
  if (parts.counts === counts) return;
  parts.counts = counts;
  const chips = (head.counts ?? []).flatMap(([state, number, word], at) => {
    const chip = element("span", `nbd-chip nbd-${slug(state)}`, `${number.toLocaleString("en")} ${word}`);
    return at ? [element("span", "nbd-spoken", ", "), chip] : [chip];
  });
  if (chips.length) parts.said.replaceChildren(...chips);
  else write(parts.said, head.said);
  parts.progress.replaceChildren(
    ...(head.counts ?? []).map(([state, number]) => {
      const part = element("span", `nbd-part nbd-${slug(state)}`);
      part.style.flexGrow = number;
      return part;
    }),
  );
}

function showHead(parts, head) {
  write(parts.name, head.name);
  showTally(parts, head);
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
  thead.setAttribute("role", "rowgroup");
  thead.append(head);
  const body = element("tbody");
  body.setAttribute("role", "rowgroup");
  table.append(thead, body);
  const links = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  links.setAttribute("class", "nbd-links");
  links.setAttribute("aria-hidden", "true");
  scroll.append(table, links);
  const tip = element("div", "nbd-tip");
  tip.setAttribute("role", "tooltip");
  tip.setAttribute("aria-label", "More of the row that is pointed at");
  const more = element("div", "nbd-rest");
  const notes = element("ul", "nbd-notes"); // above the table: what runs again is told before it costs
  const pane = element("div", "nbd-pane");
  const side = element("div", "nbd-side");
  side.hidden = true;
  pane.append(scroll, side);
  root.append(notes, pane, tip, more);
  return { scroll, side, table, body, axis, links, tip, more, notes, rows: new Map(), ticks: "", linked: false, focus: "", pointed: "" };
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
  const start = element("span", "nbd-start");
  const tail = element("span", "nbd-tail");
  code.append(start, tail);
  const chosen = element("span", "nbd-chosen");
  const mark = element("span", "nbd-mark");
  const deaths = element("span", "nbd-deaths");
  const remark = element("span", "nbd-remark");
  const error = element("span", "nbd-error");
  const sort = element("b");
  const rest = element("span");
  error.append(sort, rest);
  label.append(twist, code, chosen, mark, deaths, remark, error);
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
  const number = element("td", "nbd-number");
  const time = element("span");
  const tally = element("span", "nbd-tally");
  number.append(time, tally);
  for (const cell of [label, state, lane, number]) cell.setAttribute("role", "gridcell");
  row.append(label, state, lane, number);
  return { row, twist, start, tail, chosen, mark, deaths, remark, error, sort, rest, glyph, word, counts, track, time, tally, said: null };
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
  showLabel(parts, said.label);
  write(parts.chosen, said.chosen ? `★ ${said.chosen}` : "");
  write(parts.mark, said.won ? "★ won" : said.lost ? "lost" : "");
  write(parts.deaths, said.deaths ? `☠ ${said.deaths} deaths` : "");
  write(parts.remark, [said.reached, said.since !== undefined && said.left, said.remark].filter(Boolean).join(", "));
  showError(parts, (said.error ?? "").replace(/^attempt \d+ failed: /, ""));
  write(parts.glyph, said.glyph ?? "");
  write(parts.word, said.word ?? said.state ?? "");
  write(parts.tally, said.word ?? "");
  showCounts(parts.counts, said.counts ?? []);
  showBars(parts.track, said);
  if (said.since === undefined) write(parts.time, said.left ?? said.time ?? "");
}

// Of a label that is too long, the middle is left out: its end tells it from its neighbours.
function showLabel(parts, label) {
  const at = label.length > 2 * TAIL ? label.length - TAIL : label.length;
  write(parts.start, label.slice(0, at));
  write(parts.tail, label.slice(at));
}

// An error's class is what is looked for first.
function showError(parts, error) {
  const sort = /^[\w.]+/.exec(error)?.[0] ?? "";
  write(parts.sort, sort);
  write(parts.rest, error.slice(sort.length));
}

function tipOf(said) {
  const parts = [said.label];
  if (said.error) parts.push(said.error);
  else if (said.remark && said.kind !== "step") parts.push(said.remark);
  if (said.why) parts.push(said.why);
  if (said.attempts) parts.push(`${said.attempts} attempts`);
  if (said.deaths) parts.push(`it was in flight at ${said.deaths} deaths of the kernel, and runs alone`);
  return parts.join(" — ");
}

// What is cut in a row is told in full below the table, where it covers nothing.
function showTip(table, store) {
  const focused = table.body.contains(document.activeElement) ? table.focus : "";
  const said = store.rows.get(table.pointed) ?? store.rows.get(focused);
  write(table.tip, said === undefined ? "" : tipOf(said));
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
  if (said.part && bars.length) bars.at(-1).style.setProperty("--nbd-part", `${said.part * 100}%`);
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
    if (next?.classList.contains("nbd-detail-row")) next = next.nextElementSibling;
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
  showTip(table, store);
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
  table.linked = shown.length > 0;
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

// The axis ends a little after now; where nothing ran yet, after the longest of what was saved.
function spanFor(elapsed, live, saved) {
  return Math.max(live ? elapsed * 1.04 + 0.05 : elapsed, saved ?? 0, 0.001);
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

function showAxis(table, root, elapsed, head) {
  const span = spanFor(elapsed, head.live, head.span);
  root.style.setProperty("--nbd-now", elapsed);
  root.style.setProperty("--nbd-span", span);
  const step = tickOf(span);
  const last = Math.floor((span * 0.9) / step);
  if (table.ticks === `${step} ${last}`) return;
  table.ticks = `${step} ${last}`;
  const ticks = [];
  for (let n = 0; n <= last; n += 1) {
    const tick = element("span", "nbd-tick", axisLabel(n * step));
    tick.style.left = `calc(${n * step} / var(--nbd-span) * 100%)`;
    ticks.push(tick);
  }
  table.axis.replaceChildren(...ticks);
}

// --- The view -----------------------------------------------------------------------------

// Where this view lives, the text for pages on which it doesn't is not to be seen.
function hideSoFar(root, mark) {
  if (!/^[\w-]+$/.test(mark ?? "")) return;
  root.append(element("style", "", `.${mark}, .jp-OutputArea-child:has(.${mark}) { display: none }`));
}

// After the end this view is taken off its page, but not off one that was reloaded meanwhile.
function makeLeft(root) {
  const left = element("section", "nbd-left");
  left.hidden = true;
  root.append(left);
  let due;
  return (summary) => {
    if (due !== undefined) return;
    due = setTimeout(() => {
      left.innerHTML = summary; // the kernel's own, in which all that is shown is escaped
      left.append(element("p", "", "What the cell showed after this page was loaded is not here: run the cell again to see it. What is saved is not run again."));
      left.hidden = false;
    }, LEFT);
  };
}

function render({ model, el }) {
  const store = storeOf(model);
  const root = element("section", "nbd-view");
  el.append(root);
  hideSoFar(root, model.get("state")?.mark);
  let waiting = 0; // since when an answer is waited for

  const ask = (content) => {
    waiting ||= performance.now();
    store.ask(content);
  };
  const head = makeHead(
    root,
    () => ask({ do: "suspend" }),
    () => ask({ do: "redo" }),
  );
  const table = makeTable(root);
  const detail = makeDetail(
    () => look(null),
    () => ask({ do: "cancel", place: detail.place }),
    () => ask({ do: store.rows.get(String(detail.place))?.state === "failed" ? "redo" : "retry", place: detail.place }),
  );

  const look = (key) => {
    const said = store.rows.get(key);
    const back = detail.place;
    detail.place = said?.place ?? null;
    detail.told = "";
    detail.facts.replaceChildren();
    hide(detail.copy, true);
    for (const [each, parts] of table.rows) parts.row.setAttribute("aria-selected", String(each === String(detail.place)));
    if (detail.place === null) {
      detail.row.remove();
      hide(table.side, true);
      if (back !== null) table.rows.get(String(back))?.row.focus();
      return;
    }
    placeDetail();
    refresh(true);
    showButtons();
    showLinks(table, store);
  };
  // Moved only if it is elsewhere: what is moved loses the focus and how far it is scrolled.
  const placeDetail = () => {
    if (detail.place === null) return;
    const above = table.rows.get(String(detail.place))?.row;
    const beside = root.clientWidth >= BESIDE;
    const home = beside ? table.side : detail.cell;
    if (above === undefined) {
      look(null);
      return;
    }
    if (detail.panel.parentElement !== home) home.append(detail.panel);
    hide(table.side, !beside);
    if (beside) detail.row.remove();
    else if (above.nextElementSibling !== detail.row) above.after(detail.row);
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
    const how = `Retry takes it out when the cell has ended, as %durable redo ${store.head.name} --errors does: run the cell again then.`;
    write(detail.how, said.state === "failed" ? how : "");
    hide(detail.cancel, !store.head.live || store.head.deaf || !(MOVING.has(said.state) || said.state === "waiting"));
    const again = said.state === "failed" && said.kind === "step";
    write(detail.retry, again ? "Retry" : "Retry now");
    hide(detail.retry, !store.head.live || store.head.deaf || !(again || said.state === "retrying"));
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
    const key = event.target.closest("tr.nbd-row")?.dataset.key;
    if (key === undefined || String(document.getSelection())) return;
    focus(key);
    if (event.target.closest(".nbd-twist") && toggle(key)) return;
    act(key);
  });
  table.body.addEventListener("focusin", (event) => {
    const key = event.target.closest("tr").dataset.key;
    if (key === undefined) return;
    for (const [each, parts] of table.rows) parts.row.tabIndex = each === key ? 0 : -1;
    table.focus = key;
    showTip(table, store);
    showLinks(table, store);
  });
  table.body.addEventListener("focusout", () => showTip(table, store));
  table.body.addEventListener("pointerover", (event) => {
    table.pointed = event.target.closest("tr")?.dataset.key ?? "";
    showTip(table, store);
    showLinks(table, store);
  });
  table.body.addEventListener("pointerleave", () => {
    table.pointed = "";
    showTip(table, store);
    showLinks(table, store);
  });
  table.body.addEventListener("keydown", (event) => {
    if (detail.row.contains(event.target)) return;
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
    const gone = store.head.live && store.gone;
    const silent = gone || (store.head.live && quiet > SILENCE);
    root.classList.toggle("nbd-silent", silent);
    root.classList.toggle("nbd-gone", gone);
    hide(head.silence, !silent);
    write(head.silence, !silent ? "" : gone ? `the kernel is gone: ${RESUME}` :
      `no news from the kernel for ${Math.floor(quiet / 1000)} s: if it died, ${RESUME}`);
    const status = gone ? "kernel gone" : silent ? "no news" : store.head.status;
    write(head.status, status);
    style(head.status, `nbd-status nbd-${slug(status)}`);
    hide(head.suspend, !store.head.live || store.head.deaf || gone);
    const failed = (store.head.counts ?? []).some(([state]) => state === "failed");
    hide(head.redo, head.suspend.hidden || !failed);
    if (!silent) store.shown = Math.max(store.shown, store.told + quiet / 1000);
    const now = store.shown;
    // Told by another clock than the kernel's, the end may seem to come before now.
    const execution = `${store.head.execution} ${store.head.started}`;
    if (store.clocked !== execution) [store.clocked, store.elapsed] = [execution, 0];
    const elapsed = Math.max(store.elapsed, store.head.live ? now - store.head.started : store.head.elapsed);
    store.elapsed = elapsed;
    const { spared, left } = store.head;
    write(head.time, [duration(elapsed), silent ? "" : left, spared && `saved ${spared}`].filter(Boolean).join("; "));
    showAxis(table, root, elapsed, store.head);
    if (table.linked && store.head.live) showLinks(table, store);
    for (const parts of table.rows.values()) tick(parts, now, gone);
    if (waiting && performance.now() - waiting > UNHEARD && !silent) {
      write(head.answer, DEAF);
    }
    const said = store.rows.get(String(detail.place));
    if (said !== undefined && !silent && store.head.live && said.state !== "waiting") refresh(false);
    speak(head, store.head, silent);
  };
  const tick = (parts, now, gone) => {
    const { since, again, state } = parts.said;
    if (since === undefined) return;
    write(parts.time, parts.said.time ?? duration(now - since));
    const wait = again === undefined ? 0 : again - now;
    write(parts.word, gone ? "lost" : wait > 0 ? `retrying in ${Math.ceil(wait)} s` : state);
    write(parts.glyph, gone ? "☠" : parts.said.glyph);
  };
  const listener = {
    news: () => {
      if (store.head.name === undefined) return;
      if (store.summary !== undefined && !store.head.live) showLeft(store.summary);
      showHead(head, store.head);
      showTable(table, store);
      placeDetail();
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

  const showLeft = makeLeft(root);
  listener.news();
  store.listeners.add(listener);
  const ticking = setInterval(clock, TICK);
  const sized = new ResizeObserver(placeDetail);
  sized.observe(root);
  return () => {
    sized.disconnect();
    clearInterval(ticking);
    store.listeners.delete(listener);
  };
}

export default { initialize: ({ model }) => void storeOf(model), render };

// The live view of a run: lays out what the kernel says, and lets time go on.
//
// The kernel sends one `state` (see nbdurable/progress.py, `snapshot`) and, when
// there is no news, a `beat`. All words come from there; here are layout, ticking
// clocks and the one thing the kernel can't say: that it is gone.

const SILENCE = 5000; // ms without news after which the kernel may be gone
const TICK = 200; // ms
const SPOKEN = 5000; // ms between two lines for screen readers

const COLUMNS = ["Step", "State", "Attempts", "Time", "Why"];

function element(tag, classes = "", text = "") {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  if (text) made.textContent = text;
  return made;
}

// Writing only what changed keeps selections, and spares the layout.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function style(node, classes) {
  if (node.className !== classes) node.className = classes;
}

function duration(seconds) {
  if (seconds < 59.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  const whole = Math.round(seconds);
  const two = (n) => String(n).padStart(2, "0");
  if (whole >= 86400) return `${Math.floor(whole / 86400)} d ${two(Math.floor((whole % 86400) / 3600))} h`;
  if (whole >= 3600) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
  return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
}

const slug = (state) => state.replaceAll(" ", "-");

// --- The line above the table ---------------------------------------------------

function makeHead(root) {
  const head = element("div", "nbd-head");
  const name = element("strong", "nbd-name");
  const status = element("span", "nbd-status");
  const said = element("span", "nbd-said");
  const time = element("span", "nbd-time");
  const silence = element("div", "nbd-silence");
  silence.hidden = true;
  // Screen readers get their own line: the visible one changes too often to be read out.
  const spoken = element("div", "nbd-spoken");
  spoken.setAttribute("role", "status");
  spoken.setAttribute("aria-live", "polite");
  head.append(name, status, said, time);
  root.append(head, silence, spoken);
  return { name, status, said, time, silence, spoken, spokenAt: -SPOKEN };
}

function showHead(head, state) {
  write(head.name, state.name);
  write(head.status, state.status);
  style(head.status, `nbd-status nbd-${slug(state.status)}`);
  write(head.said, state.said);
}

function speak(head, state, silent) {
  const now = performance.now();
  if (!silent && state.live && now - head.spokenAt < SPOKEN) return;
  write(head.spoken, silent ? `${state.name}: no news from the kernel` : `${state.name} ${state.status}: ${state.said}`);
  head.spokenAt = now;
}

// --- The table ------------------------------------------------------------------

function makeTable(root) {
  const scroll = element("div", "nbd-scroll");
  scroll.tabIndex = 0; // so that the keyboard can scroll it
  scroll.setAttribute("role", "region");
  const table = element("table", "nbd-table");
  const caption = element("caption", "nbd-spoken");
  const head = element("tr");
  for (const column of COLUMNS) {
    const cell = element("th", "", column);
    cell.scope = "col";
    head.append(cell);
  }
  const thead = element("thead");
  thead.append(head);
  const body = element("tbody");
  table.append(caption, thead, body);
  scroll.append(table);
  const more = element("div", "nbd-more");
  const notes = element("ul", "nbd-notes");
  root.append(scroll, more, notes);
  return { scroll, caption, body, more, notes, rows: new Map() };
}

function makeRow(place) {
  const row = element("tr");
  row.dataset.place = place;
  const label = element("th", "nbd-label");
  label.scope = "row";
  const code = element("code");
  const mark = element("span", "nbd-mark");
  const branches = element("ul", "nbd-branches");
  label.append(code, mark, branches);
  const state = element("td", "nbd-state");
  const glyph = element("span", "nbd-glyph");
  glyph.setAttribute("aria-hidden", "true");
  const word = element("span");
  state.append(glyph, word);
  const attempts = element("td", "nbd-number");
  const time = element("td", "nbd-number");
  const why = element("td", "nbd-why");
  row.append(label, state, attempts, time, why);
  return { row, code, mark, branches, glyph, word, attempts, time, why, told: "", said: null };
}

function showRow(parts, said) {
  parts.said = said;
  const told = JSON.stringify(said);
  if (told === parts.told) return;
  parts.told = told;
  style(parts.row, `nbd-row nbd-${slug(said.state)}${said.won ? " nbd-won" : ""}${said.lost ? " nbd-lost" : ""}`);
  parts.row.dataset.kind = said.kind;
  parts.row.style.setProperty("--nbd-depth", said.depth ?? 0);
  write(parts.code, said.label);
  write(parts.mark, said.won ? "★ won" : said.lost ? "lost" : "");
  write(parts.glyph, said.glyph);
  write(parts.word, said.state);
  write(parts.attempts, said.attempts ? String(said.attempts) : "");
  write(parts.why, said.remark ?? "");
  showBranches(parts.branches, said.branches ?? [], said.more ?? 0);
  if (said.since === undefined) write(parts.time, said.time ?? "");
}

function showBranches(list, branches, more) {
  list.replaceChildren(
    ...branches.map((branch) => {
      const item = element("li", branch.won ? "nbd-branch nbd-won" : `nbd-branch nbd-${slug(branch.state)}`);
      const glyph = element("span", "nbd-glyph", branch.won ? "★" : branch.glyph);
      glyph.setAttribute("aria-hidden", "true");
      item.append(glyph, element("code", "", branch.label), element("span", "nbd-fate", branch.won ? "won" : branch.state));
      return item;
    }),
  );
  if (more) list.append(element("li", "nbd-branch", `… ${more.toLocaleString("en")} more`));
}

function showTable(table, state) {
  write(table.caption, `Steps of ${state.name}`);
  table.scroll.setAttribute("aria-label", `Steps of ${state.name}`);
  const gone = new Set(table.rows.keys());
  let next = table.body.firstElementChild;
  for (const said of state.rows) {
    gone.delete(said.place);
    let parts = table.rows.get(said.place);
    if (parts === undefined) {
      parts = makeRow(said.place);
      table.rows.set(said.place, parts);
    }
    showRow(parts, said);
    if (parts.row === next) next = next.nextElementSibling;
    else table.body.insertBefore(parts.row, next);
  }
  for (const place of gone) {
    table.rows.get(place).row.remove();
    table.rows.delete(place);
  }
  write(table.more, state.hidden ? `… ${state.hidden.toLocaleString("en")} more rows` : "");
  table.scroll.hidden = state.rows.length === 0;
  table.notes.replaceChildren(...state.notes.map((note) => element("li", "", note)));
}

// --- What goes on between two messages ------------------------------------------

// `now` is the kernel's time: the browser's clock only measures what passed since.
function tick(head, table, state, now) {
  const elapsed = state.live ? now - state.started : state.elapsed;
  write(head.time, `${duration(elapsed)}${state.spared ? `; saved ${state.spared}` : ""}`);
  for (const parts of table.rows.values()) {
    const { since, again } = parts.said;
    if (since === undefined) continue;
    write(parts.time, duration(now - since));
    const wait = again === undefined ? 0 : again - now;
    write(parts.word, wait > 0 ? `retrying in ${Math.ceil(wait)} s` : parts.said.state);
  }
}

function render({ model, el }) {
  const root = element("section", "nbd-view");
  el.append(root);
  const head = makeHead(root);
  const table = makeTable(root);
  let state;
  let told = 0; // the kernel's time in the last message, in s
  let heard = 0; // ours when it came, in ms

  const clock = () => {
    if (!state.name) return;
    const quiet = performance.now() - heard;
    const silent = state.live && quiet > SILENCE;
    root.classList.toggle("nbd-silent", silent);
    head.silence.hidden = !silent;
    if (silent) {
      write(
        head.silence,
        `no news from the kernel for ${Math.floor(quiet / 1000)} s: ` +
          "if it died, run the notebook again to resume",
      );
    }
    tick(head, table, state, told + (silent ? 0 : quiet / 1000));
    speak(head, state, silent);
  };
  const onNews = () => {
    state = model.get("state");
    told = Math.max(state.now ?? 0, model.get("beat"));
    heard = performance.now();
    clock();
  };
  const onState = () => {
    state = model.get("state");
    if (!state.name) return;
    showHead(head, state);
    showTable(table, state);
    onNews();
  };

  onState();
  model.on("change:state", onState);
  model.on("change:beat", onNews);
  const ticking = setInterval(clock, TICK);
  return () => {
    clearInterval(ticking);
    model.off("change:state", onState);
    model.off("change:beat", onNews);
  };
}

export default { render };

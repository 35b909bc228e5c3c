// One step, looked at. Part of the live view: the kernel joins this to view.js.

// It opens under its row, as a row of its own, or beside the table where there is room.
function makeDetail(onClose, onCancel, onRetry) {
  const row = element("tr", "nbd-detail-row");
  row.setAttribute("role", "row");
  const cell = element("td");
  cell.setAttribute("role", "gridcell");
  const panel = element("section", "nbd-detail");
  cell.append(panel);
  row.append(cell);
  const head = element("div", "nbd-detail-head");
  const name = element("code", "nbd-detail-name");
  const cancel = button("nbd-cancel", "Cancel step", onCancel);
  const retry = button("nbd-retry", "Retry now", onRetry);
  const copy = button("nbd-copy", "Copy error", () => {
    const error = [...facts.querySelectorAll("dt")].find((term) => term.textContent === "Error");
    navigator.clipboard?.writeText(error?.nextElementSibling?.textContent ?? "");
  });
  const close = button("nbd-close", "Close", onClose);
  head.append(name, cancel, retry, copy, close);
  const facts = element("dl", "nbd-facts");
  const how = element("p", "nbd-how");
  panel.append(head, how, facts);
  return { row, cell, how, panel, name, cancel, retry, copy, close, facts, told: "", place: null, asked: 0 };
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
  hide(parts.copy, !(detail.facts ?? []).some(([term]) => term === "Error"));
  const ends = [...parts.facts.querySelectorAll("pre")].map((block) => block.scrollTop);
  parts.facts.replaceChildren(...items);
  [...parts.facts.querySelectorAll("pre")].forEach((block, at) => {
    block.scrollTop = ends[at] ?? 0;
  });
}

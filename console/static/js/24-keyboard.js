// Shortcuts: dead while one types, and off for those who switched them off. The palette goes to pages and opens pasted ids.
(() => {
  const palette = document.getElementById("palette");
  const openPalette = () => {
    if (!palette || palette.open) return;
    palette.showModal();
    const input = palette.querySelector("input");
    input.value = "";
    filter("");
    input.focus();
  };
  const items = () => [...(palette?.querySelectorAll(".menu-item:not([hidden])") ?? [])];
  const mark = (item) => {
    palette.querySelectorAll(".menu-item").forEach((i) => i.setAttribute("aria-selected", String(i === item)));
    const input = palette.querySelector("input");
    if (item) { input.setAttribute("aria-activedescendant", item.id); item.scrollIntoView({ block: "nearest" }); } else input.removeAttribute("aria-activedescendant");
  };
  const idShape = /^[a-z]{3}_[0-9a-hjkmnp-tv-z]{26}$/;
  const filter = (text) => {
    const wanted = text.trim().toLowerCase();
    const jump = palette.querySelector("[data-open-id]");
    const isId = idShape.test(wanted);
    jump.hidden = !isId;
    if (isId) { jump.href = "/x/" + wanted; jump.querySelector("code").textContent = wanted; }
    for (const i of palette.querySelectorAll(".menu-item:not([data-open-id])")) i.hidden = isId || !i.textContent.toLowerCase().includes(wanted);
    palette.querySelector("[data-nothing]").hidden = items().length > 0;
    mark(items()[0]);
  };
  if (palette) {
    palette.querySelector("input").addEventListener("input", (e) => filter(e.target.value));
    palette.addEventListener("keydown", (e) => {
      const list = items();
      const at = list.findIndex((i) => i.getAttribute("aria-selected") === "true");
      if (e.key === "ArrowDown") { e.preventDefault(); mark(list[(at + 1) % list.length]); }
      if (e.key === "ArrowUp") { e.preventDefault(); mark(list.at(at - 1)); }
      if (e.key === "Enter") { e.preventDefault(); list[at]?.click(); }
    });
  }
  document.addEventListener("click", (e) => { if (e.target.closest("[data-palette]")) openPalette(); });

  document.addEventListener("keydown", (e) => {
    if ((e.metaKey || e.ctrlKey) && e.key.toLowerCase() === "k") { e.preventDefault(); openPalette(); }
  });
  if (ambit.cookie("ambit_keys") === "off") return;

  let going = 0;
  const rows = () => [...document.querySelectorAll("[data-rows] [data-row]")].filter((r) => r.offsetParent);
  const current = () => document.querySelector("[data-row].is-cursor, [data-row][aria-current=true]");
  const step = (by) => {
    const list = rows();
    if (!list.length) return;
    const at = list.indexOf(current());
    const next = list[at < 0 ? (by > 0 ? 0 : list.length - 1) : Math.min(list.length - 1, Math.max(0, at + by))];
    document.querySelectorAll(".is-cursor").forEach((r) => r.classList.remove("is-cursor"));
    next.classList.add("is-cursor");
    (next.matches("a") ? next : next.querySelector("a"))?.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  };
  document.addEventListener("keydown", (e) => {
    if (e.metaKey || e.ctrlKey || e.altKey || e.defaultPrevented) return;
    if (e.target.closest("input, textarea, select, [contenteditable], dialog")) return;
    if (going && Date.now() - going < 1200) {
      going = 0;
      const link = document.querySelector(`[data-go="${CSS.escape(e.key)}"]`);
      if (link) { e.preventDefault(); link.click(); }
      return;
    }
    const acts = {
      g: () => { going = Date.now(); },
      "?": () => document.getElementById("shortcuts")?.showModal(),
      "/": () => document.querySelector("[data-filter]")?.focus(),
      j: () => step(1),
      k: () => step(-1),
      "]": () => step(1),
      "[": () => step(-1),
      ".": () => {
        const bad = [...document.querySelectorAll("[data-error]")];
        const from = current();
        const next = bad.find((b) => !from || from.compareDocumentPosition(b) & Node.DOCUMENT_POSITION_FOLLOWING) ?? bad[0];
        next?.scrollIntoView({ block: "center" });
        (next?.matches("a") ? next : next?.querySelector("a"))?.focus({ preventScroll: true });
      },
      l: () => document.querySelector("[data-live]")?.click(),
      c: () => document.querySelector("[data-create]")?.click(),
    };
    const act = acts[e.key];
    if (!act) return;
    if (e.key !== "g") e.preventDefault();
    act();
  });
})();

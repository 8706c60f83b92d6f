// Copy buttons, menus, dialogs, forms, code viewers, toasts: one delegated listener each, so that swapped content needs no wiring.
(() => {
  const say = (text) => {
    const live = document.getElementById("announce");
    if (live) live.textContent = text;
  };
  ambit.say = say;

  document.addEventListener("click", async (e) => {
    const copy = e.target.closest("[data-copy], [data-copy-from]");
    if (copy) {
      e.preventDefault();
      const source = copy.dataset.copyFrom ? document.getElementById(copy.dataset.copyFrom) : null;
      const text = source ? (source.value ?? source.textContent) : copy.dataset.copy;
      try {
        await navigator.clipboard.writeText(text);
        copy.dataset.copied = "";
        say("Copied");
        setTimeout(() => delete copy.dataset.copied, 1600);
      } catch {
        // Without permission the text is selected instead, so that the person's own shortcut works.
        const range = document.createRange();
        range.selectNodeContents(source || copy.previousElementSibling || copy);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        say("Press Ctrl C to copy");
      }
    }
    const open = e.target.closest("[data-open]");
    if (open) {
      const dialog = document.getElementById(open.dataset.open);
      if (dialog && !dialog.open) {
        e.preventDefault();
        document.querySelectorAll("details.menu[open]").forEach((m) => m.removeAttribute("open"));
        dialog.showModal();
      }
    }
    if (e.target.closest("[data-close]")) e.target.closest("dialog")?.close();
    // A click that lands on the dialog element itself is a click on the backdrop; a destructive dialog stays.
    if (e.target.matches?.("dialog:not([data-stay])")) {
      const r = e.target.getBoundingClientRect();
      if (e.clientX < r.left || e.clientX > r.right || e.clientY < r.top || e.clientY > r.bottom) e.target.close();
    }
    for (const m of document.querySelectorAll("details.menu[open]")) if (!m.contains(e.target)) m.removeAttribute("open");
    // The row whose details the inspector is about to show.
    const pick = e.target.closest("[data-pick], a[data-row]");
    if (pick) {
      const row = pick.closest("[data-row]");
      for (const r of document.querySelectorAll("[data-row][aria-current]")) r.removeAttribute("aria-current");
      row.setAttribute("aria-current", "true");
    }
    const wrap = e.target.closest("[data-wrap]");
    if (wrap) wrap.setAttribute("aria-pressed", String(wrap.closest(".code").classList.toggle("wrapped")));
    if (e.target.closest("[data-dismiss]")) e.target.closest(".toast, .banner")?.remove();
    const reveal = e.target.closest("[data-reveal]");
    if (reveal) {
      const input = document.getElementById(reveal.dataset.reveal);
      const shown = input.type === "text";
      input.type = shown ? "password" : "text";
      reveal.setAttribute("aria-pressed", String(!shown));
      reveal.textContent = shown ? "Show" : "Hide";
    }
  });

  document.addEventListener("keydown", (e) => {
    if (e.key !== "Escape") return;
    const menu = document.querySelector("details.menu[open]");
    if (menu) { menu.removeAttribute("open"); menu.querySelector("summary").focus(); }
  });

  // Arrow keys walk an open menu.
  document.addEventListener("keydown", (e) => {
    if (e.key !== "ArrowDown" && e.key !== "ArrowUp") return;
    const menu = e.target.closest?.("details.menu");
    if (!menu) return;
    e.preventDefault();
    menu.open = true;
    const items = [...menu.querySelectorAll(".menu-item")];
    const at = items.indexOf(document.activeElement);
    items.at((at + (e.key === "ArrowDown" ? 1 : at < 0 ? 0 : -1)) % items.length)?.focus();
  });

  // A form is sent once; Back must find it usable again.
  document.addEventListener("submit", (e) => {
    const form = e.target;
    if (form.method === "dialog" || form.hasAttribute("hx-get") || form.hasAttribute("hx-post")) return;
    if (form.dataset.sent) return e.preventDefault();
    form.dataset.sent = "1";
    form.classList.add("sending");
  });
  addEventListener("pageshow", () => {
    for (const f of document.querySelectorAll("form[data-sent]")) { delete f.dataset.sent; f.classList.remove("sending"); }
  });

  // Ctrl or Cmd Enter sends from a text area that says so.
  document.addEventListener("keydown", (e) => {
    if (e.key === "Enter" && (e.metaKey || e.ctrlKey) && e.target.matches?.("textarea[data-send]")) {
      e.preventDefault();
      e.target.form.requestSubmit();
    }
  });

  // Filters apply as one changes them; without scripts their button does.
  document.addEventListener("change", (e) => {
    const form = e.target.closest?.("form[data-auto]");
    if (form && e.target.matches("select, input[type=checkbox], input[type=radio]")) form.requestSubmit();
  });

  // Errors of a form are announced and reached first.
  document.querySelector("[data-focus]")?.focus();

  document.addEventListener("htmx:after:swap", (e) => {
    // Where the inspector is below what was picked, it is brought into view.
    const pane = document.getElementById("inspector");
    if (pane && e.detail?.ctx?.sourceElement?.matches?.("[data-pick], a[data-row]") && pane.getBoundingClientRect().top > innerHeight * 0.7) pane.scrollIntoView({ block: "start" });
    for (const d of document.querySelectorAll("dialog[data-shown]:not([open])")) d.showModal();
    document.querySelectorAll(".toast[data-seconds]").forEach(expire);
  });
  const expire = (t) => {
    if (t.dataset.timed) return;
    t.dataset.timed = "1";
    setTimeout(() => t.remove(), Number(t.dataset.seconds) * 1000);
  };
  document.querySelectorAll(".toast[data-seconds]").forEach(expire);
  for (const d of document.querySelectorAll("dialog[data-shown]:not([open])")) d.showModal();

  // A composer that was sent is emptied, whatever the morph kept in it. The page may have been patched meanwhile: the form that was sent is
  // then no longer in the document, its events go no further than itself, and its successor has the text. What was typed since stays.
  document.addEventListener("htmx:before:request", (e) => {
    const form = e.target;
    if (!form?.matches?.("form[data-clear]")) return;
    const sent = form.querySelector("textarea")?.value;
    form.addEventListener("htmx:after:request", (done) => {
      if (!(done.detail.ctx.response?.status < 300)) return;
      const now = form.isConnected ? form
        : [...document.querySelectorAll("form[data-clear]")].find((f) => f.getAttribute("action") === form.getAttribute("action"));
      if (now && now.querySelector("textarea")?.value === sent) now.reset();
    }, { once: true });
  });
})();

// A choice on which the rest of the page depends loads the page again with it.
document.addEventListener("change", (e) => {
  const name = e.target.dataset?.reload;
  if (name) location.assign(location.pathname + "?" + new URLSearchParams({ [name]: e.target.value }));
});

// The button that runs something says what it may cost at most, also while the ceiling is being written.
document.addEventListener("input", (e) => {
  if (!e.target.matches?.("[data-ceiling]")) return;
  const amount = /^\$?(\d{1,13})(?:\.(\d{0,9}))?$/.exec(e.target.value.trim());
  const label = e.target.form.querySelector("button[type=submit] span");
  const cents = (amount?.[2] ?? "").padEnd(2, "0");
  label.textContent = amount && Number(amount[0].replace("$", "")) > 0 ? `Run, at most $${Number(amount[1])}.${cents}` : "Run";
});

// The one stream of a page. Its element carries hx-sse:connect with the last journal number that the page shows; the server sends
// "patch" events with hx-partials and the number as id. Here are what htmx leaves open: saying how the stream is, pausing it, never
// applying a number twice, and following the end only while the reader is there.
(() => {
  const stream = document.querySelector("[data-stream]");
  if (!stream) return;
  const button = document.querySelector("[data-live]");
  let last = Number(stream.dataset.after || 0);
  let connection = null;
  let paused = sessionStorage.getItem("ambit_paused") === location.pathname;
  let ended = false;
  let slow = 0;
  let fresh = 0;

  const words = { live: "Live", paused: "Paused", reconnecting: "Reconnecting", ended: "Ended" };
  const show = (state) => {
    if (!button) return;
    button.dataset.state = state;
    button.querySelector("[data-live-word]").textContent = words[state];
    button.disabled = state === "ended";
    button.setAttribute("aria-pressed", String(state === "paused"));
  };
  const late = () => {
    clearTimeout(slow);
    slow = setTimeout(() => { if (!paused && !ended) { show("reconnecting"); ambit.say("Connection lost, reconnecting"); } }, 3000);
  };

  stream.addEventListener("htmx:sse:before:connection", (e) => {
    connection = e.detail.connection;
    if (paused || ended) { e.detail.connection.cancelled = true; return; }
    // The first connection is open already when this is called; a later one may take its time.
    if (connection.attempt > 0) late();
  });
  stream.addEventListener("htmx:sse:after:connection", (e) => {
    connection = e.detail.connection;
    clearTimeout(slow);
    if (!paused) show("live");
  });
  stream.addEventListener("htmx:sse:error", () => { if (!ended) late(); });
  stream.addEventListener("htmx:error", () => { if (!ended) { late(); setTimeout(resume, 4000); } });
  stream.addEventListener("htmx:sse:close", (e) => {
    if (e.detail.reason === "message") { ended = true; clearTimeout(slow); show("ended"); }
  });
  stream.addEventListener("htmx:sse:before:message", (e) => {
    const m = e.detail.message;
    const seq = Number(m.id || 0);
    if (m.event === "patch") {
      // A preview repeats the last number; a patch must be newer than all that was applied.
      if (seq && seq <= last) { e.detail.cancelled = true; return; }
      if (seq) last = seq;
      m.event = "";
      // The inspector may show something else just now than the session's facts.
      if (!document.getElementById("session-facts")) m.data = m.data.replace(/<hx-partial hx-target="#session-facts"[^]*?<\/hx-partial>/, "");
    } else if (m.event === "preview") {
      m.event = "";
    }
    follow.before();
  });
  stream.addEventListener("htmx:sse:after:message", () => follow.after());
  stream.addEventListener("refetch", () => location.reload());

  const resume = () => {
    if (paused || ended || stream._htmx?.sse) return;
    const url = new URL(stream.getAttribute("hx-sse:connect"), location.href);
    url.searchParams.set("after_seq", String(last));
    stream.setAttribute("hx-sse:connect", url.pathname + url.search);
    htmx.process(stream, true);
  };
  button?.addEventListener("click", () => {
    paused = !paused;
    if (paused) {
      sessionStorage.setItem("ambit_paused", location.pathname);
      show("paused");
      connection?.reader?.cancel();
    } else {
      sessionStorage.removeItem("ambit_paused");
      show("live");
      resume();
    }
    ambit.say(paused ? "Live updates paused" : "Live updates on");
  });
  if (paused) show("paused");

  // Following: the end is kept in view only for somebody who is there. On a wide screen a pane scrolls, on a phone the window.
  const jump = document.querySelector("[data-jump]");
  const pane = document.querySelector("[data-scroller]");
  const scroller = () => (pane && pane.scrollHeight > pane.clientHeight + 1 && getComputedStyle(pane).overflowY === "auto" ? pane : document.documentElement);
  // The window of a phone has the inspector below the transcript: there, the end is the message box.
  const mark = document.getElementById("composer");
  const atEnd = () => {
    const e = scroller();
    return e !== document.documentElement || !mark ? e.scrollTop + e.clientHeight >= e.scrollHeight - 120 : mark.getBoundingClientRect().bottom <= innerHeight + 120;
  };
  const toEnd = () => {
    const e = scroller();
    if (e !== document.documentElement || !mark) e.scrollTop = e.scrollHeight; else mark.scrollIntoView({ block: "end" });
  };
  const list = document.querySelector("[data-follow]");
  const follow = {
    there: true,
    had: 0,
    before() { this.there = atEnd(); this.had = list?.childElementCount ?? 0; },
    after() {
      if (!list) return;
      if (this.there) { toEnd(); fresh = 0; } else fresh += Math.max(0, list.childElementCount - this.had);
      if (!jump) return;
      jump.hidden = fresh === 0;
      if (fresh) jump.querySelector("[data-jump-count]").textContent = String(fresh);
    },
  };
  jump?.addEventListener("click", () => { fresh = 0; jump.hidden = true; toEnd(); });
  const seen = () => { if (fresh && atEnd()) { fresh = 0; if (jump) jump.hidden = true; } };
  addEventListener("scroll", seen, { passive: true });
  pane?.addEventListener("scroll", seen, { passive: true });
  // A page about something at work opens at its end, unless the address names a place in it.
  const picked = document.querySelector("[data-follow] [data-row][aria-current=true]");
  if (picked) picked.scrollIntoView({ block: "center" });
  else if (list && !location.hash && !new URLSearchParams(location.search).has("step")) toEnd();
})();

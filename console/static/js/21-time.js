// One zone a page. The server writes times in the zone that the cookie names; this keeps relative ones fresh, and on the very first
// visit, when the server did not know the zone yet, writes all of them again.
(() => {
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const asked = new URLSearchParams(location.search).get("tz");
  let zone = asked === "utc" ? "UTC" : ambit.cookie("ambit_zone");
  if (!zone) ambit.remember("ambit_zone", (zone = own));
  const parts = (date, options) => new Intl.DateTimeFormat("en-GB", { timeZone: zone, ...options }).format(date);
  const absolute = (d) => parts(d, { day: "numeric", month: "short" }) + (parts(d, { year: "numeric" }) !== parts(new Date(), { year: "numeric" }) ? " " + parts(d, { year: "numeric" }) : "") + ", " + parts(d, { hour: "2-digit", minute: "2-digit", hour12: false });
  const clock = (d) => parts(d, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  const relative = (d) => {
    const s = Math.round((Date.now() - d) / 1000);
    if (s < 0) {
      if (s > -60) return `in ${-s} s`;
      if (s > -3600) return `in ${Math.round(-s / 60)} min`;
      if (s > -86400) return `in ${Math.round(-s / 3600)} h`;
      return absolute(d);
    }
    if (s < 5) return "just now";
    if (s < 60) return `${s} s ago`;
    if (s < 3600) return `${Math.floor(s / 60)} min ago`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
    return absolute(d);
  };
  const styles = { rel: relative, abs: absolute, clock };
  const write = (root, only) => {
    for (const t of root.querySelectorAll(only ? `time[data-when="${only}"]` : "time[data-when]")) {
      const text = styles[t.dataset.when]?.(new Date(t.dateTime));
      if (text && t.textContent !== text) t.textContent = text;
    }
  };
  const rendered = document.documentElement.dataset.zone;
  if (rendered && rendered !== zone) write(document);
  setInterval(() => { if (!document.hidden) write(document, "rel"); }, 15000);
  document.addEventListener("htmx:after:swap", () => { if (rendered && rendered !== zone) write(document); });
  document.addEventListener("click", (e) => {
    const b = e.target.closest("[data-set-zone]");
    if (!b) return;
    ambit.remember("ambit_zone", b.dataset.setZone === "utc" ? "UTC" : own);
    location.reload();
  });
  for (const e of document.querySelectorAll("[data-own-zone]")) e.textContent = own.replaceAll("_", " ");
})();

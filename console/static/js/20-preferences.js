// Theme, folded sidebar, time zone and shortcuts are cookies, so that the server already renders the page as wanted and nothing jumps.
window.ambit = (() => {
  const cookie = (name) => {
    const m = document.cookie.match(new RegExp("(?:^|; )" + name + "=([^;]*)"));
    return m ? decodeURIComponent(m[1]) : "";
  };
  const remember = (name, value) => {
    document.cookie = `${name}=${encodeURIComponent(value)}; path=/; max-age=31536000; samesite=lax` + (location.protocol === "https:" ? "; secure" : "");
  };
  const root = document.documentElement;

  document.addEventListener("click", (e) => {
    const theme = e.target.closest("[data-set-theme]");
    if (theme) {
      const value = theme.dataset.setTheme;
      if (value === "system") delete root.dataset.theme; else root.dataset.theme = value;
      remember("ambit_theme", value);
      for (const b of document.querySelectorAll("[data-set-theme]")) b.setAttribute("aria-pressed", String(b.dataset.setTheme === value));
    }
    if (e.target.closest("[data-fold]")) {
      const shell = document.querySelector(".shell");
      const folded = shell.dataset.nav !== "folded";
      shell.dataset.nav = folded ? "folded" : "open";
      remember("ambit_nav", shell.dataset.nav);
      const label = folded ? "Unfold the sidebar" : "Fold the sidebar";
      const button = e.target.closest("[data-fold]");
      button.setAttribute("aria-label", label);
      button.setAttribute("aria-expanded", String(!folded));
    }
    const keys = e.target.closest("[data-set-keys]");
    if (keys) {
      remember("ambit_keys", keys.dataset.setKeys);
      location.reload();
    }
  });
  return { cookie, remember };
})();

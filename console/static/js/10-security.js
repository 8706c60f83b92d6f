// Trusted Types: only htmx may turn text into nodes, and nothing may turn text into code. The policy passes HTML through because every
// fragment comes from this origin, where templ has escaped it; expressions in attributes are refused outright.
(() => {
  const refuse = () => { throw new Error("expressions in attributes are not allowed here"); };
  const policy = window.trustedTypes
    ? trustedTypes.createPolicy("htmx", { createHTML: (s) => s, createScript: (s) => s })
    : { createHTML: (s) => s, createScript: (s) => s };
  htmx.registerExtension("ambit", {
    init: (api) => api.initSecurity(policy, function () { refuse(); }, function () { refuse(); }),
  });
})();

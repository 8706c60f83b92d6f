// Passkeys: a form that says so is sent once the authenticator has answered. The options are the server's, in the element's data; nothing
// is kept here.
(() => {
  const problemOf = (form) => form.querySelector("[data-passkey-problem]");
  const fail = (form, text) => {
    const p = problemOf(form);
    if (!p) return;
    p.textContent = text;
    p.hidden = false;
    p.focus();
  };
  const words = (e) => {
    switch (e.name) {
      case "NotAllowedError": return "Nothing was confirmed: it was cancelled, it took too long, or no passkey on this device fits.";
      case "InvalidStateError": return "This device has a passkey for your account already.";
      case "SecurityError": return "The browser refuses passkeys at this address. Open the console under its own name.";
      default: return "The passkey gave no answer. Try it again.";
    }
  };
  const ask = async (form) => {
    const data = form.dataset;
    if (!window.PublicKeyCredential?.parseRequestOptionsFromJSON) throw new Error("no passkeys");
    const made = data.passkeyCreate
      ? await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(JSON.parse(data.passkeyCreate)) })
      : await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(JSON.parse(data.passkeyGet)) });
    return JSON.stringify(made.toJSON());
  };

  // In the capture phase: before a form counts as sent.
  document.addEventListener("submit", async (e) => {
    const form = e.target;
    if (!form.dataset?.passkeyGet && !form.dataset?.passkeyCreate) return;
    const button = e.submitter;
    if (button?.hasAttribute("data-other-way")) return;
    const answer = form.elements.namedItem("passkey_answer");
    if (answer.value) return;
    e.preventDefault();
    e.stopImmediatePropagation();
    if (form.dataset.asking) return;
    form.dataset.asking = "1";
    problemOf(form).hidden = true;
    try {
      answer.value = await ask(form);
    } catch (err) {
      fail(form, window.PublicKeyCredential?.parseRequestOptionsFromJSON ? words(err) : "This browser does not know passkeys well enough. A newer one does.");
      return;
    } finally {
      delete form.dataset.asking;
    }
    form.requestSubmit(button);
  }, true);

  // Enter in the code's field means the code, not the form's first button.
  document.addEventListener("keydown", (e) => {
    if (e.key !== "Enter" || e.target.name !== "recovery_code") return;
    e.preventDefault();
    e.target.form.requestSubmit(e.target.form.querySelector("[data-other-way]"));
  });

  // Back must find it usable again.
  addEventListener("pageshow", () => {
    for (const i of document.querySelectorAll("input[name=passkey_answer]")) i.value = "";
  });
})();

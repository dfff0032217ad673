// Keeps the page fresh, and sends the operator's token as a header that is kept for this tab only.
"use strict";
(() => {
  const EVERY = 2000; // milliseconds
  const KEY = "selfheal-token";
  const at = (id) => document.getElementById(id);
  const token = () => sessionStorage.getItem(KEY) || "";
  const headers = () => (token() ? { Authorization: `Bearer ${token()}` } : {});
  const parse = (text) => new DOMParser().parseFromString(text, "text/html");
  let last = null;

  function say(text, stale) {
    const line = at("fresh");
    line.classList.toggle("stale", stale);
    if (line.textContent !== text) line.textContent = text;
  }

  // A part that did not change stays as it is, with the focus and the selection in it.
  function put(part) {
    const old = at(part.id);
    if (!old) {
      at("live").append(document.adoptNode(part));
    } else if (old.outerHTML !== part.outerHTML) {
      const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
      old.replaceWith(document.adoptNode(part));
      if (focused && at(focused)) at(focused).focus({ preventScroll: true });
    }
  }

  async function refresh() {
    try {
      const answer = await fetch("live", { headers: headers(), cache: "no-store" });
      if (answer.status === 401) {
        say("A token is needed to look.", true);
        return;
      }
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      for (const part of [...parse(await answer.text()).querySelectorAll("section")]) put(part);
      if (at("locked")) at("locked").remove();
      last = new Date();
      say("Updates by itself.", false);
    } catch {
      const since = last ? ` since ${last.toLocaleTimeString()}` : "";
      say(`No answer from the server${since}: what is below may be old.`, true);
    }
  }

  async function turn() {
    if (!document.hidden) await refresh();
    setTimeout(turn, EVERY);
  }

  function keepToken(fields) {
    const typed = fields.get("token");
    if (typed) sessionStorage.setItem(KEY, typed);
    fields.delete("token");
    showToken();
  }

  function showToken() {
    const known = token() !== "";
    for (const line of document.querySelectorAll(".token")) {
      line.hidden = known;
      line.querySelector("input").required = !known;
      line.querySelector("input").value = "";
    }
    for (const line of document.querySelectorAll(".kept")) line.hidden = !known;
  }

  async function submit(event) {
    event.preventDefault();
    const form = event.target;
    const fields = new FormData(form, event.submitter);
    keepToken(fields);
    if (fields.get("do") === "look") return refresh();
    const buttons = [...document.querySelectorAll("button")].filter((one) => !one.disabled);
    for (const one of buttons) one.disabled = true;
    try {
      const answer = await fetch("./", { method: "POST", headers: headers(), body: new URLSearchParams(fields) });
      const said = parse(await answer.text()).getElementById("said");
      if (answer.status === 401) sessionStorage.removeItem(KEY);
      if (!said) throw new Error(`status ${answer.status}`);
      at("said").replaceWith(document.adoptNode(said));
    } catch (error) {
      const line = document.createElement("p");
      line.className = "error";
      line.setAttribute("role", "alert");
      line.textContent = `No answer: ${error.message}. Look at the champion before asking again.`;
      at("said").replaceChildren(line);
    } finally {
      for (const one of buttons) one.disabled = false;
      showToken();
      at("said").focus();
      at("said").scrollIntoView({ block: "nearest" });
      refresh();
    }
    return undefined;
  }

  document.addEventListener("submit", submit);
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  document.addEventListener("click", (event) => {
    if (event.target.id !== "forget") return;
    sessionStorage.removeItem(KEY);
    showToken();
  });
  showToken();
  turn();
})();

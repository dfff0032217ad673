// Keeps the page fresh, and sends the operator's token as a header that is kept for this tab only.
"use strict";
(() => {
  const EVERY = 2000; // milliseconds
  const LOOK = "selfheal-look";
  const STEER = "selfheal-steer";
  const at = (id) => document.getElementById(id);
  const known = (key) => sessionStorage.getItem(key) || "";
  const headers = (token) => (token ? { Authorization: `Bearer ${token}` } : {});
  const parse = (text) => new DOMParser().parseFromString(text, "text/html");
  let last = null;

  function say(text, stale) {
    const line = at("fresh");
    line.classList.toggle("stale", stale);
    if (line.textContent !== text) line.textContent = text;
  }

  // Moments come in UTC and are shown in the reader's own time; the title keeps what came.
  const ZONE = new Intl.DateTimeFormat([], { timeZoneName: "short" })
    .formatToParts(new Date()).find((part) => part.type === "timeZoneName").value;
  const two = (number) => String(number).padStart(2, "0");

  function localize(part) {
    for (const time of part.querySelectorAll("time[datetime], text[data-moment]")) {
      const at = new Date(time.dateTime || time.dataset.moment);
      if (Number.isNaN(at.getTime())) continue;
      if (time.dateTime) time.title = `${time.textContent} UTC`;
      const text = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
      time.textContent = time.dateTime ? text : text.slice(5, 16);
    }
    for (const zone of part.querySelectorAll(".zone")) zone.textContent = ZONE;
  }

  // A part that did not change stays as it is, with the focus and the selection in it; so does one
  // in which a button is held down, whose click would be lost.
  function put(part) {
    localize(part);
    const old = at(part.id);
    const shown = [...(old ? old.querySelectorAll("details[open]") : [])];
    for (const one of shown) part.querySelector(`#${one.id}`)?.setAttribute("open", "");
    if (!old) {
      at("live").append(document.adoptNode(part));
    } else if (!old.matches(":active") && old.outerHTML !== part.outerHTML) {
      const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
      old.replaceWith(document.adoptNode(part));
      if (focused && at(focused)) at(focused).focus({ preventScroll: true });
    }
  }

  async function refresh() {
    try {
      const answer = await fetch("live", { headers: headers(known(STEER) || known(LOOK)), cache: "no-store" });
      if (answer.status === 401 || answer.status === 403) {
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

  function keepToken(fields, key) {
    const typed = fields.get("token");
    if (typed) sessionStorage.setItem(key, typed);
    fields.delete("token");
    showToken();
  }

  function showToken() {
    const kept = known(STEER) !== "";
    for (const line of document.querySelectorAll(".token")) {
      line.hidden = kept;
      line.querySelector("input").required = !kept;
      line.querySelector("input").value = "";
    }
    for (const line of document.querySelectorAll(".kept")) line.hidden = !kept;
  }

  async function submit(event) {
    event.preventDefault();
    const form = event.target;
    const fields = new FormData(form, event.submitter);
    const looks = fields.get("do") === "look";
    keepToken(fields, looks ? LOOK : STEER);
    if (looks) return refresh();
    const buttons = [...document.querySelectorAll("button")].filter((one) => !one.disabled);
    for (const one of buttons) one.disabled = true;
    try {
      const answer = await fetch("./", { method: "POST", headers: headers(known(STEER)), body: new URLSearchParams(fields) });
      const said = parse(await answer.text()).getElementById("said");
      if (answer.status === 401 || answer.status === 403) sessionStorage.removeItem(STEER);
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
    sessionStorage.clear();
    showToken();
  });
  localize(document);
  showToken();
  turn();
})();

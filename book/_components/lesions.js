// Lesions: two images of a case, the truth, and what networks say of it with a photograph, guided by dermoscopy or not,
// and with both. The data stand in the page, written by mmlib.studies.lesions; the view is in the address after the #,
// beside what others keep there.
(() => {
  const OWN = ["lesion", "asked", "seen"]; // keys of the address
  const keys = data.networks.map(one => one.key);
  const state = { case: 0, task: 0, networks: new Set(data.opens) };

  const change = edit => event => { edit(event.target); show(); };
  const shownNow = () => data.networks.filter(one => state.networks.has(one.key));

  const cases = data.kinds.map(({ name, count }) => {
    const place = data.cases.findIndex(one => one.kind === name);
    return { place, label: choice("radio", "lesion", `${name} (${count})`, change(() => { state.case = place; }), { disabled: place < 0 }) };
  });
  const tasks = data.tasks.map((one, i) => choice("radio", "asked", one.name, change(() => { state.task = i; })));
  const networks = data.networks.map(({ key, name }) => choice("checkbox", "seen", name, change(box => {
    if (box.checked) state.networks.add(key); else if (state.networks.size > 1) state.networks.delete(key);
  })));
  const about = make("p", { class: "about" }), truth = make("p", { class: "truth" });
  const said = make("p", { class: "said", "aria-live": "polite" }), table = make("table", { class: "scores answers" });
  const tiles = Object.entries(data.pictures).map(([key, name]) => {
    const image = make("img", { class: "dark-light", width: 320, height: 320 }), shows = make("small");
    const pins = make("span", { class: "pins", "aria-hidden": "true" });
    return { key, name, image, pins, shows,
      tile: make("div", { class: "tile" }, make("span", { class: "top" }, name), make("span", { class: "picture" }, image, pins), shows) };
  });
  const link = copyLink("Copy a link to this lesion", () => write());
  figure.querySelector("noscript").before(
    set(`Lesion: the first by name of each kind; in brackets, how many of ${data.n} test lesions are of it`, ...cases.map(one => one.label)),
    about, make("div", { class: "pair" }, ...tiles.map(one => one.tile)),
    set("Asked for", ...tasks), set("Networks, by what they are given", ...networks), truth,
    make("div", { class: "wide", tabindex: 0 }, table), said, link);

  function visible(one, task) { // which image shows a sign that the lesion has
    if (!Object.values(one.shows).some(signs => task.key in signs)) return "";
    return Object.entries(data.pictures).map(([key, name]) =>
      `the ${name} ${task.key in one.shows[key] ? "shows" : "does not show"} it`).join(", ");
  }
  function answers(one, task) {
    const shown = shownNow(), right = one.truth[state.task];
    const head = make("tr", {}, make("th", { scope: "col" }, "Probability, %"), ...shown.map(({ name }) =>
      make("th", { scope: "col", style: `width:${75 / shown.length}%` }, name)));
    const rows = task.classes.map((name, k) => make("tr", k === right ? { class: "true" } : {},
      make("th", { scope: "row" }, name, ...(k === right ? [make("small", {}, "the truth")] : [])),
      ...shown.map(({ key, colour }) => {
        const value = one.said[key][state.task][k], text = percent(value), taken = one.answers[key][state.task] === k;
        return make("td", { "data-network": key, ...(taken && { class: "taken" }) }, make(taken ? "strong" : "span", {}, text),
          bar(value, colour));
      })));
    const foot = [
      make("tr", { class: "verdict" }, make("th", { scope: "row" }, "answer"), ...shown.map(({ key }) =>
        make("td", {}, one.answers[key][state.task] === right ? "right" : "wrong"))),
      make("tr", {}, make("th", { scope: "row" }, `balanced accuracy of ${data.n} lesions, seeds: ${data.seeds}`), ...shown.map(({ key, means }) =>
        make("td", { "data-mean": key }, `${means[state.task].toFixed(1)} %`))),
    ];
    table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows), make("tfoot", {}, ...foot));
    said.textContent = `${data.caveat}${shown.map(({ key, name }) => {
      const taken = one.answers[key][state.task];
      return `${name} says ${task.classes[taken]}, ${percent(one.said[key][state.task][taken])} %, ${taken === right ? "right" : "wrong"}`;
    }).join("; ")}.`;
  }

  function show(keep = true) {
    const one = data.cases[state.case], task = data.tasks[state.task];
    const kind = data.kinds.find(kind => kind.name === one.kind), seen = visible(one, task);
    cases.forEach(({ place, label }) => { label.firstChild.checked = place === state.case; });
    tasks.forEach((label, i) => { label.firstChild.checked = i === state.task; });
    networks.forEach((label, i) => { label.firstChild.checked = state.networks.has(keys[i]); });
    about.textContent = `Lesion ${one.name}: diagnosis ${kind.rule}. ${kind.count} of ${data.n} test lesions are of this kind, and it is the first by name.`;
    for (const { key, name, image, pins, shows } of tiles) {
      const signs = Object.entries(one.shows[key]), places = Object.entries(one.places[key]); // both in the same order
      image.src = one.images[key];
      image.alt = `${name} of lesion ${one.name}`;
      pins.replaceChildren(...places.map(([sign, [x, y]], i) =>
        make("b", { style: `left:${100 * x}%;top:${100 * y}%`, "data-sign": sign }, i + 1)));
      shows.textContent = `shows: ${signs.map(([sign, word], i) => sign in one.places[key] ? `(${i + 1}) ${word}` : word).join(", ") || "no sign"}`;
    }
    truth.textContent = `Truth, ${task.name}: ${task.classes[one.truth[state.task]]}${seen && `; ${seen}`}.`;
    answers(one, task);
    if (keep) write();
  }

  // ------------------------------------------------------------------------------------------------------- the link
  function write() {
    remember({ lesion: data.cases[state.case].name, asked: data.tasks[state.task].key, seen: keys.filter(key => state.networks.has(key)).join("+") });
  }
  function read() {
    const given = address();
    const found = data.cases.findIndex(one => one.name === given.lesion);
    if (found < 0) return false;
    state.case = found;
    state.task = Math.max(0, data.tasks.findIndex(one => one.key === given.asked));
    const seen = (given.seen ?? "").split("+").filter(key => keys.includes(key));
    if (seen.length) state.networks = new Set(seen);
    return true;
  }
  const last = () => OWN.includes(parts().at(-1)?.split("=")[0]); // this was touched last, so the link is about it
  const enter = () => {
    if (read() && last()) figure.scrollIntoView();
    show(false);
  };
  window.addEventListener("hashchange", enter);
  enter();
})();

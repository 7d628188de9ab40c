// Results you can ask: choose a task, networks, combinations, a region and a metric; the chart, the table and the CSV
// follow. The data stand in the page, written by mmlib.studies.asking; the choice is in the address after the #.
(() => {
  if (!data.tasks.length) {
    figure.querySelector("noscript").replaceWith("No scores of these tasks are in this profile.");
    return;
  }
  const SVG = "http://www.w3.org/2000/svg", LANE = 12, LEAST = 30, AXIS = 38, STEP = 26;
  const state = { task: 0, metric: 0, target: 0, arms: new Set(), held: {}, size: "" };

  const draw = (tag, given, ...inside) => make(document.createElementNS(SVG, tag), given, ...inside);
  const option = (type, group, text, checked, edit, before = []) =>
    choice(type, group, [...before, text], event => { edit(event.target.checked); show(); }, { checked });
  function select(title, options, value, edit) {
    const box = make("select", { onchange: event => { edit(event.target.value); show(); } },
      ...options.map(([key, text]) => make("option", { value: key }, text)));
    box.value = value;
    return make("label", {}, `${title} `, box);
  }
  const marker = arm => draw("path", { d: arm.shape, fill: arm.colour });
  const sign = arm => draw("svg", { class: "sign", viewBox: "-6 -6 12 12", "aria-hidden": "true" }, marker(arm));

  const controls = make("div"), chart = make("div", { class: "lanes" }), said = make("output"), table = make("div", { class: "numbers", tabindex: 0 });
  const save = make("button", { type: "button", onclick: csv }, "Download what is shown as CSV");
  figure.querySelector("noscript").before(controls, chart, said, save, table);

  const task = () => data.tasks[state.task];
  const number = value => value.toFixed(task().metrics[state.metric].digits);
  const sure = row => row.low === null ? "no interval" : `${number(row.low)} to ${number(row.high)}`;
  function enter(i) { // a task opens with all of its networks and combinations
    Object.assign(state, { task: i, metric: 0, target: task_(i).opens, arms: new Set(task_(i).arms.keys()), held: {}, size: "" });
  }
  const task_ = i => data.tasks[i];

  function shown() { // the rows asked for, in the order of combinations and networks
    const { arms, combinations, runs, rows } = task();
    const wanted = combinations.map(one => one.split("+")).map(has =>
      (!state.size || has.length === +state.size)
      && Object.entries(state.held).every(([name, how]) => !how || has.includes(name) === (how === "there")));
    return rows.filter(([arm, have, target, metric]) =>
      wanted[have] && state.arms.has(arm) && target === state.target && metric === state.metric)
      .map(([arm, have, , , mean, low, high, n, seeds, run]) =>
        ({ arm: arms[arm], place: arm, have: combinations[have], order: have, mean, low, high, n, seeds, runs: runs[run] }))
      .sort((a, b) => a.order - b.order || a.place - b.place);
  }

  function choose() {
    const { arms, targets, metrics, modalities, combinations } = task();
    const sizes = [...new Set(combinations.map(one => one.split("+").length))].sort();
    controls.replaceChildren(
      set("Task", ...data.tasks.map((one, i) => option("radio", "task", one.title, i === state.task, () => enter(i)))),
      set("Networks", ...arms.map((arm, i) => option("checkbox", "arm", ` ${arm.name}`, state.arms.has(i), on => {
        if (on) state.arms.add(i); else state.arms.delete(i);
      }, [sign(arm)]))),
      set(task().asks, ...targets.map((one, i) => option("radio", "target", one, i === state.target, () => { state.target = i; }))),
      set("Measure", ...metrics.map((one, i) => option("radio", "metric", one.name, i === state.metric, () => { state.metric = i; }))),
      make("fieldset", { class: "bars" }, make("legend", {}, "Images that are there"),
        ...modalities.map(name => select(name, [["", "any"], ["there", "there"], ["missing", "missing"]], state.held[name] ?? "",
          value => { state.held[name] = value; })),
        select("how many", [["", "any"], ...sizes.map(one => [one, one])], state.size, value => { state.size = value; })));
  }

  function scale(rows, [least, most]) { // bounds and ticks that hold all intervals
    const low = least ?? Math.min(...rows.map(row => row.low ?? row.mean)), high = most ?? Math.max(...rows.map(row => row.high ?? row.mean));
    const rough = (high - low || 1) / 5, unit = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map(k => k * unit).find(one => one >= rough);
    const [from, to] = [Math.floor(low / step + 1e-9) * step, Math.ceil(high / step - 1e-9) * step];
    return { x: value => `${(100 * (Math.min(Math.max(value, from), to) - from) / (to - from)).toFixed(2)}%`,
      ticks: Array.from({ length: Math.round((to - from) / step) + 1 }, (_, i) => +(from + i * step).toPrecision(6)) };
  }
  function tell(row) {
    const runs = row.runs.flatMap((run, i) => [i ? ", " : "", make("a", { href: `94_provenance.html#runs-${run.split("/")[0]}` }, run)]);
    said.replaceChildren(`${row.arm.name} from ${row.have}: ${number(row.mean)} (${sure(row)}), ${row.n} cases, ${row.seeds} seeds. Runs: `, ...runs);
  }
  function plot(rows) {
    const { modalities, metrics, targets } = task(), metric = metrics[state.metric];
    const lanes = [...new Set(rows.map(row => row.have))], most = Math.max(1, state.arms.size), lane = Math.max(LEAST, LANE + 5 * most);
    const { x, ticks } = scale(rows, metric.bounds), bottom = 24 + lane * lanes.length;
    const left = draw("svg", { height: bottom + AXIS }), right = draw("svg", { height: bottom + AXIS });
    modalities.forEach((name, i) => left.append(draw("text", { x: STEP * i + 13, y: 14, "text-anchor": "middle", "font-size": 11 }, name)));
    ticks.forEach((value, i) => right.append(draw("line", { class: "line", x1: x(value), x2: x(value), y1: 24, y2: bottom }),
      draw("text", { x: x(value), y: bottom + 15, "text-anchor": i === ticks.length - 1 ? "end" : "middle" }, String(value))));
    right.append(draw("text", { x: "50%", y: bottom + 32, "text-anchor": "middle" }, `${metric.name}, ${targets[state.target]} (${metric.better} is better)`));
    lanes.forEach((have, i) => {
      const middle = 24 + lane * (i + .5);
      modalities.forEach((name, column) => left.append(draw("circle", { cx: STEP * column + 13, cy: middle, r: 5,
        ...have.split("+").includes(name) ? { fill: data.colours[name] } : { class: "absent" } })));
      right.append(draw("line", { class: "line", x1: 0, x2: "100%", y1: middle + lane / 2, y2: middle + lane / 2 }));
      const own = rows.filter(row => row.have === have), places = [...state.arms].sort((a, b) => a - b);
      for (const row of own) {
        const y = middle + (lane - 8) * ((places.indexOf(row.place) + .5) / places.length - .5);
        const point = draw("g", { class: "point", tabindex: 0, role: "button",
          "aria-label": `${row.arm.name} from ${have}: ${number(row.mean)} (${sure(row)})` },
          draw("line", { x1: x(row.low ?? row.mean), x2: x(row.high ?? row.mean), y1: y, y2: y, stroke: row.arm.colour, "stroke-width": 1.6 }),
          draw("svg", { x: x(row.mean), y, style: "width:1px" }, draw("circle", { r: 8, fill: "transparent" }), marker(row.arm)));
        for (const event of ["pointerover", "focus", "click"]) point.addEventListener(event, () => tell(row));
        right.append(point);
      }
    });
    left.style.height = right.style.height = `${bottom + AXIS}px`;
    chart.replaceChildren(make("div", { class: "sides", style: `grid-template-columns:${STEP * modalities.length + 10}px 1fr` }, left, right));
  }
  function list(rows) {
    const arms = [...new Map(rows.map(row => [row.place, row.arm]))].sort((a, b) => a[0] - b[0]);
    const lanes = [...new Set(rows.map(row => row.have))];
    table.replaceChildren(make("table", { class: "dataframe" },
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "images"), ...arms.map(([, arm]) => make("th", { scope: "col" }, arm.name)))),
      make("tbody", {}, ...lanes.map(have => make("tr", {}, make("th", { scope: "row" }, have), ...arms.map(([place]) => {
        const row = rows.find(one => one.have === have && one.place === place);
        return make("td", {}, row ? `${number(row.mean)} (${sure(row)})` : "-");
      }))))));
  }
  function csv() {
    const quoted = value => /[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value ?? "";
    const { title, targets, metrics } = task(), metric = metrics[state.metric];
    const head = ["task", "network", "images", "target", "metric", "mean", "low_95", "high_95", "cases", "seeds", "runs"];
    const lines = shown().map(row => [title, row.arm.name, row.have, targets[state.target], data.caveat + metric.name, row.mean, row.low, row.high,
      row.n, row.seeds, row.runs.join(" ")]);
    const file = new Blob([[head, ...lines].map(line => line.map(quoted).join(",")).join("\n") + "\n"], { type: "text/csv" });
    const link = make("a", { href: URL.createObjectURL(file), download: "scores.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function show(keep = true) {
    const at = [...controls.querySelectorAll("input, select")].indexOf(document.activeElement);
    choose();
    if (at >= 0) controls.querySelectorAll("input, select")[at]?.focus(); // the controls are made anew
    const rows = shown();
    said.textContent = rows.length ? `${data.caveat}Point at a marker, tap it or go to it by Tab: it names its runs.` : "No score meets this choice.";
    save.disabled = !rows.length;
    if (rows.length) { plot(rows); list(rows); } else { chart.replaceChildren(); table.replaceChildren(); }
    if (keep) write();
  }
  function write() {
    const { arms, targets, metrics } = task();
    const named = how => Object.keys(state.held).filter(name => state.held[name] === how).join("+") || undefined;
    remember({ task: state.task, measure: metrics[state.metric].key, of: targets[state.target],
      networks: state.arms.size < arms.length ? [...state.arms].map(i => arms[i].key.replaceAll(" ", "_")).join("+") || undefined : undefined,
      there: named("there"), missing: named("missing"), size: state.size || undefined });
  }
  function read() {
    const given = address();
    if (!data.tasks[given.task]) return false;
    enter(+given.task);
    const { arms, targets, metrics, modalities } = task();
    state.metric = Math.max(0, metrics.findIndex(one => one.key === given.measure));
    state.target = targets.includes(given.of) ? targets.indexOf(given.of) : state.target;
    if (given.networks) state.arms = new Set([...arms.keys()].filter(i => given.networks.split("+").includes(arms[i].key.replaceAll(" ", "_"))));
    for (const how of ["there", "missing"])
      for (const name of (given[how] ?? "").split("+")) if (modalities.includes(name)) state.held[name] = how;
    state.size = given.size ?? "";
    return true;
  }
  window.addEventListener("hashchange", () => { if (read()) show(false); });
  if (!read()) enter(0);
  show(false);
})();

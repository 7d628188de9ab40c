// Drop a modality: what is left of a case, what networks make of it, and what can be known. The data stand in the page,
// written by mmlib.figures.explorer; nothing is fetched, and the state of the view is in the address after the #.
(() => {
  const figure = document.currentScript.closest("figure.explorer");
  const data = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
  const PLANES = ["axial", "coronal", "sagittal"];
  const PIXELS = 300; // across a picture; the page scales it down
  const names = data.modalities.map(one => one.name);
  const state = { case: 0, have: new Set(names), plane: 0, at: [0, 0, 0], opacity: 35,
    methods: new Set([...data.methods.keys()].filter(i => !data.methods[i].reads)) };

  // ------------------------------------------------------------------------------------------------------ the data
  const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const unpacked = new Map(); // what was asked for once
  function once(text, make) {
    if (!unpacked.has(text)) unpacked.set(text, make(text));
    return unpacked.get(text);
  }
  async function load(one) { // the sheet of each image, as a volume
    const [R, C, S] = one.shape, volumes = {};
    await Promise.all(Object.entries(one.images).map(async ([name, address]) => {
      const sheet = new Image();
      sheet.src = address;
      await sheet.decode();
      const { width, height } = sheet, pen = new OffscreenCanvas(width, height).getContext("2d");
      pen.drawImage(sheet, 0, 0);
      const rgba = pen.getImageData(0, 0, width, height).data, across = width / C, volume = new Uint8Array(R * C * S);
      for (let s = 0, i = 0; s < S; s++) for (let r = 0; r < R; r++) {
        i = 4 * ((Math.floor(s / across) * R + r) * width + s % across * C);
        for (let c = 0; c < C; c++, i += 4) volume[(r * C + c) * S + s] = rgba[i];
      }
      volumes[name] = volume;
    }));
    one.volumes = volumes;
  }
  // Runs of one value (1 wt, 2 tc, 4 et): three bits of value, four of length, then seven more in each byte that follows.
  function marks(one, text, times = 1) {
    return once(text, () => {
      const runs = bytes(text), all = new Uint8Array(one.shape.reduce((size, n) => size * n / times, 1));
      for (let i = 0, place = 0; i < runs.length;) {
        let byte = runs[i++], length = byte >> 3 & 15;
        const value = byte & 7;
        for (let shift = 4; byte & 128; shift += 7) length |= ((byte = runs[i++]) & 127) << shift;
        all.fill(value, place, place += length);
      }
      return all;
    });
  }
  // A plane through a volume [row][column][slice]: front and head at the top, the patient's right on the left.
  function plane(one, volume, times = 1) { // of which a voxel is as wide as so many that are shown
    const [R, C, S] = one.shape.map(n => n / times), at = Math.floor(state.at[state.plane] / times);
    const [height, width] = [[R, C], [S, C], [S, R]][state.plane];
    const cut = new Uint8Array(height * width);
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
      const [r, c, s] = [[y, x, at], [at, x, S - 1 - y], [x, at, S - 1 - y]][state.plane];
      cut[y * width + x] = volume[(r * C + c) * S + s];
    }
    const [dy, dx] = [[0, 1], [2, 1], [2, 0]][state.plane].map(axis => one.spacing[axis]);
    return { cut, width, height, size: [PIXELS, Math.round(PIXELS * height * dy / (width * dx))] };
  }

  // --------------------------------------------------------------------------------------------------- the pictures
  function scaled({ width, height, size }, fill) { // paint voxels, then let the browser smooth them to full size
    const small = new OffscreenCanvas(width, height), big = new OffscreenCanvas(...size);
    const pixels = new ImageData(width, height);
    fill(pixels.data);
    small.getContext("2d").putImageData(pixels, 0, 0);
    const pen = big.getContext("2d", { willReadFrequently: true });
    pen.imageSmoothingQuality = "high";
    pen.drawImage(small, 0, 0, ...size);
    return big;
  }
  function draw(canvas, one, name, marked, times) {
    if (!one.volumes) return;
    const grey = plane(one, one.volumes[name]);
    [canvas.width, canvas.height] = grey.size;
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(scaled(grey, to => grey.cut.forEach((v, i) => to.set([v, v, v, 255], 4 * i))), 0, 0);
    if (!marked) return;
    const cut = plane(one, marked, times), [width, height] = grey.size;
    const shown = pen.getImageData(0, 0, width, height), to = shown.data;
    data.regions.forEach((region, bit) => {
      const mask = scaled(cut, rgba => cut.cut.forEach((v, i) => { rgba[4 * i + 3] = v >> bit & 1 ? 255 : 0; }));
      const alpha = mask.getContext("2d").getImageData(0, 0, width, height).data;
      const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && alpha[4 * (y * width + x) + 3] > 127;
      for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) if (inside(x, y)) {
        const edge = !(inside(x - 2, y) && inside(x + 2, y) && inside(x, y - 2) && inside(x, y + 2));
        const share = edge ? 1 : state.opacity / 100;
        for (let k = 0; k < 3; k++) {
          const place = 4 * (y * width + x) + k;
          to[place] += share * (region.rgb[k] - to[place]);
        }
      }
    });
    pen.putImageData(shown, 0, 0);
  }

  // ------------------------------------------------------------------------------------------------------- the page
  function make(tag, given = {}, ...inside) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(given))
      if (name.startsWith("on") || name === "checked" || name === "value") element[name] = value;
      else element.setAttribute(name, value);
    element.append(...inside);
    return element;
  }
  const choice = (type, group, value, text, pick) => // a radio button or a check box with its label
    make("label", { class: "choice" }, make("input", { type, name: group, value, onchange: pick }), make("span", {}, text));
  const change = (edit) => event => { edit(event.target); show(); };

  const cases = data.cases.map((one, i) => choice("radio", "case", i, one.why, change(() => { enter(i); })));
  const methods = data.methods.map((one, i) => choice("checkbox", "method", i, one.name, change(box => {
    if (box.checked) state.methods.add(i); else state.methods.delete(i);
  })));
  const planes = PLANES.map((name, i) => choice("radio", "plane", i, name, change(() => { state.plane = i; })));
  const slice = make("input", { type: "range", min: 0, oninput: change(bar => { state.at[state.plane] = +bar.value; }) });
  const opacity = make("input", { type: "range", min: 0, max: 100, oninput: change(bar => { state.opacity = +bar.value; }) });
  const place = make("output"), about = make("p", { class: "about" }), said = make("p", { class: "said", "aria-live": "polite" });
  const inputs = data.modalities.map(({ name, colour }) => {
    const box = make("input", { type: "checkbox", value: name, onchange: change(box => {
      if (box.checked) state.have.add(name); else if (state.have.size > 1) state.have.delete(name);
    }) });
    const title = make("span", { class: "name" }, make("i", { style: `background:${colour}` }), name);
    return { name, box, canvas: make("canvas"), tile: make("label", { class: "tile" }, make("span", { class: "top" }, box, title)) };
  });
  for (const one of inputs)
    one.tile.append(make("span", { class: "picture" }, one.canvas, make("span", { class: "gone" }, `${one.name} missing`)));
  const outputs = [{ name: "truth" }, ...data.methods].map(({ name }) => {
    const canvas = make("canvas", { role: "img" });
    const top = make("span", { class: "top" }, name), dice = make("b", { class: "dice" }), gone = make("span", { class: "gone" });
    return { canvas, name, dice, gone, tile: make("div", { class: "tile" }, top, make("span", { class: "picture" }, canvas, gone), dice) };
  });
  const table = make("table", { class: "scores" });
  const link = make("button", { type: "button", onclick: () => {
    const done = text => { link.textContent = text; setTimeout(() => { link.textContent = "Copy a link to this view"; }, 2000); };
    (navigator.clipboard ? navigator.clipboard.writeText(location.href) : Promise.reject())
      .then(() => done("Copied"), () => done("The address of this page is the link"));
  } }, "Copy a link to this view");
  const set = (title, ...inside) => make("fieldset", {}, make("legend", {}, title), ...inside);
  const legend = make("p", { class: "legend" }, ...data.regions.map(region =>
    make("span", {}, make("i", { style: `background:${region.colour}` }), `${region.name.toUpperCase()} ${region.title}`)));
  figure.querySelector("noscript").before(
    set("Case", ...cases), about,
    set("Images that are there: switch one off by its box or its picture", make("div", { class: "tiles inputs" }, ...inputs.map(one => one.tile))),
    set("What is found in them, and its Dice", make("div", { class: "tiles outputs" }, ...outputs.map(one => one.tile)), legend),
    make("div", { class: "bars" }, set("Plane", ...planes), make("label", {}, "slice ", slice, " ", place),
      make("label", {}, "overlay ", opacity), set("Networks", ...methods), link),
    said, table);

  // One slice of each missing image, as it was acquired and as networks make it up.
  const filled = make("section", { class: "filled" });
  figure.querySelector("noscript").before(filled);
  function fill(one, have) {
    const missing = names.filter(name => !state.have.has(name));
    filled.hidden = !one.filled || !data.fillers.length || !missing.length;
    if (filled.hidden) return;
    const { number, shape: [height, width], acquired, made } = one.filled;
    const tile = (title, text) => {
      const canvas = make("canvas", { role: "img", "aria-label": title }), cut = once(text, bytes);
      const grey = { width, height, size: [PIXELS, Math.round(PIXELS * height / width)] };
      [canvas.width, canvas.height] = grey.size;
      canvas.getContext("2d").drawImage(scaled(grey, to => cut.forEach((v, i) => to.set([v, v, v, 255], 4 * i))), 0, 0);
      return make("div", { class: "tile" }, make("span", { class: "top" }, title), make("span", { class: "picture" }, canvas));
    };
    filled.replaceChildren(make("h3", {}, `Made up for what is missing, in voxels that networks read, axial slice ${number}`), ...missing.map(name => make("div", { class: "tiles outputs" },
      tile(`${name}, acquired (not given)`, acquired[name]),
      ...data.fillers.map(({ key, name: who }) => {
        const [image, psnr] = made[key][have][name];
        return tile(`${name} by ${who}: ${psnr.toFixed(1)} dB`, image);
      }))));
  }

  // What a network reads of the images that are there; nothing where it lacks one that it cannot do without.
  const used = ({ reads = now() }) => reads.split("+").every(name => state.have.has(name)) ? reads : undefined;
  const needs = ({ reads }) => `needs ${reads === names.join("+") ? "all images" : reads.replaceAll("+", ", ")}`;
  const now = () => names.filter(name => state.have.has(name)).join("+");
  const percent = value => `${(100 * value).toFixed(0)}`;
  function enter(i) { // a case opens on the slices with most tumour
    state.case = i;
    state.at = [...data.cases[i].start];
  }
  function bar(value, mean, colour) {
    const line = make("span", { class: "bar", "aria-hidden": "true" }, make("i", { style: `width:${100 * value}%;background:${colour}` }));
    if (mean !== undefined) line.append(make("b", { style: `left:${100 * mean}%` }));
    return line;
  }
  function scores(one, have) {
    const head = make("tr", {}, make("th", { scope: "col" }, "Dice, %"), ...data.regions.map(region => make("th", { scope: "col" }, region.title)));
    const rows = [...state.methods].sort().map(i => {
      const { key, name, colour } = data.methods[i], reads = used(data.methods[i]), mean = data.means[key][reads];
      if (!reads) return make("tr", { "data-method": key }, make("th", { scope: "row" }, name),
        make("td", { colspan: data.regions.length }, needs(data.methods[i])));
      return make("tr", { "data-method": key }, make("th", { scope: "row" }, name), ...data.regions.map((region, k) => {
        const value = one.dice[key][reads][k];
        const cell = make("td", { "data-region": region.name }, make("strong", {}, percent(value)), bar(value, mean?.[k], colour));
        if (mean) cell.append(make("small", {}, `mean of ${data.n}: ${percent(mean[k])}`));
        return cell;
      }));
    });
    const given = [have, ...[...state.methods].map(i => used(data.methods[i]) ?? have)];
    const blind = one.known !== null && given.some(reads => !reads.split("+").includes("t1ce"));
    if (blind) rows.push(make("tr", { class: "known" }, make("th", { scope: "row" }, "what images hold without t1ce"),
      ...data.regions.map(region => region.name !== "et" ? make("td", {}, "-") : make("td", { "data-region": "et" },
        make("strong", {}, percent(one.known)), bar(one.known, data.known, "currentColor"),
        make("small", {}, `mean of ${data.n}: ${percent(data.known)}`)))));
    table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
    const et = data.regions.findIndex(region => region.name === "et"), all = names.join("+");
    const words = [...state.methods].sort().map(i => {
      const { key, name, reads } = data.methods[i];
      if (!used(data.methods[i])) return `${name}, ${needs(data.methods[i])}`;
      const [with_, without] = [all, have].map(which => percent(one.dice[key][reads ?? which][et]));
      return have === all || reads ? `${name} ${with_} %` : `${name} ${without} % (with all images ${with_} %)`;
    });
    said.textContent = `${data.caveat}Enhancing tumour from ${have.replaceAll("+", ", ")}: ${words.join("; ") || "no network is chosen"}.`
      + (blind ? ` What enhances shows in t1ce alone: a network that does not read it can be expected to reach ${percent(one.known)} % here`
        + " at best; more is luck, which does not last over many cases." : "");
  }

  function show(keep = true) {
    const one = data.cases[state.case];
    figure.setAttribute("aria-busy", !one.volumes);
    if (!one.volumes) (one.loading ??= load(one)).then(() => show(false)); // then its pictures are there, too
    const have = now(), axis = [2, 0, 1][state.plane];
    const behind = reads => ["flair", "t1ce", "t2", "t1", ...names].find(name => reads.split("+").includes(name));
    slice.max = one.shape[axis] - 1;
    slice.value = state.at[state.plane];
    opacity.value = state.opacity;
    place.value = `${state.at[state.plane] + 1} of ${one.shape[axis]}`;
    about.textContent = `${one.name}: ${one.rule}`;
    cases.forEach((label, i) => { label.firstChild.checked = i === state.case; });
    planes.forEach((label, i) => { label.firstChild.checked = i === state.plane; });
    methods.forEach((label, i) => { label.firstChild.checked = state.methods.has(i); });
    for (const { name, box, canvas, tile } of inputs) {
      box.checked = state.have.has(name);
      tile.classList.toggle("missing", !box.checked);
      draw(canvas, one, name);
    }
    outputs.forEach(({ canvas, tile, name, dice, gone }, i) => {
      const method = data.methods[i - 1], reads = i ? used(method) : have;
      tile.hidden = i > 0 && !state.methods.has(i - 1);
      tile.classList.toggle("missing", !tile.hidden && !reads);
      if (tile.hidden) return;
      const ground = behind(reads ?? have);
      const [found, times] = i ? [reads && one.predicted[method.key][reads], one.times] : [one.truth];
      draw(canvas, one, ground, found && marks(one, found, times), times);
      if (!reads) [gone.textContent, dice.textContent] = [needs(method), ""];
      else if (i) dice.textContent = one.dice[method.key][reads].map((v, k) => `${data.regions[k].name.toUpperCase()}\u00a0${percent(v)}`).join(" ");
      canvas.setAttribute("aria-label", `${name} on ${ground}, ${PLANES[state.plane]} slice ${state.at[state.plane] + 1}`);
    });
    scores(one, have);
    fill(one, have);
    if (keep === true) write();
  }

  // ------------------------------------------------------------------------------------------------------- the link
  function write() {
    const parts = { case: data.cases[state.case].name, have: now(), plane: PLANES[state.plane], slice: state.at[state.plane] + 1,
      networks: [...state.methods].sort().map(i => data.methods[i].key.replaceAll(" ", "_")).join("+"), overlay: state.opacity };
    const others = location.hash.slice(1).split("&").filter(part => part.includes("=") && !(part.split("=")[0] in parts)); // of the page
    history.replaceState(null, "", "#" + [...others, ...Object.entries(parts).map(([key, value]) => `${key}=${encodeURI(value)}`)].join("&"));
  }
  function read() {
    const given = Object.fromEntries(location.hash.slice(1).split("&").map(part => part.split("=").map(decodeURI)));
    const found = given.case ? data.cases.findIndex(one => one.name === given.case) : state.case;
    if (found < 0 || !("case" in given || "networks" in given)) return false;
    if (given.case) enter(found);
    const have = (given.have ?? "").split("+").filter(name => names.includes(name));
    if (have.length) state.have = new Set(have);
    if (PLANES.includes(given.plane)) state.plane = PLANES.indexOf(given.plane);
    const last = data.cases[found].shape[[2, 0, 1][state.plane]];
    if (given.slice >= 1 && given.slice <= last) state.at[state.plane] = given.slice - 1;
    if (given.networks !== undefined)
      state.methods = new Set([...data.methods.keys()].filter(i => given.networks.split("+").includes(data.methods[i].key.replaceAll(" ", "_"))));
    if (given.overlay >= 0 && given.overlay <= 100) state.opacity = +given.overlay;
    return true;
  }
  window.addEventListener("hashchange", () => { if (read()) { show(false); figure.scrollIntoView(); } });
  enter(0);
  read();
  show(false);
})();

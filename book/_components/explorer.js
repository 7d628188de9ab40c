// Drop a modality: what is left of a case, what networks make of it, and what can be known. The data stand in the page,
// written by mmlib.figures.explorer; nothing is fetched. The state of the view is in the address after the #, but for a
// reader's own cases: their names are nobody's business, and in JupyterLab the address is not the page's. Such cases may lack
// images, a truth, or predictions from some combinations.
(() => {
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
    one.voxels = volumes;
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
    if (!one.voxels) return;
    const grey = plane(one, one.voxels[name]);
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
  const change = (edit) => event => { edit(event.target); show(); };

  const cases = data.cases.map((one, i) => choice("radio", "case", one.why, change(() => { enter(i); })));
  const methods = data.methods.map((one, i) => choice("checkbox", "method", one.name, change(box => {
    if (box.checked) state.methods.add(i); else state.methods.delete(i);
  })));
  const planes = PLANES.map((name, i) => choice("radio", "plane", name, change(() => { state.plane = i; })));
  const slice = make("input", { type: "range", min: 0, oninput: change(bar => { state.at[state.plane] = +bar.value; }) });
  const opacity = make("input", { type: "range", min: 0, max: 100, oninput: change(bar => { state.opacity = +bar.value; }) });
  const place = make("output"), about = make("p", { class: "about" }), said = make("p", { class: "said", "aria-live": "polite" });
  const inputs = data.modalities.map(({ name, colour }) => {
    const box = make("input", { type: "checkbox", value: name, onchange: change(box => {
      if (box.checked) state.have.add(name); else if (present().length > 1) state.have.delete(name);
    }) });
    const title = make("span", { class: "name" }, make("i", { style: `background:${colour}` }), name);
    const canvas = make("canvas"), gone = make("span", { class: "gone" });
    return { name, box, canvas, gone, tile: make("label", { class: "tile" }, make("span", { class: "top" }, box, title), make("span", { class: "picture" }, canvas, gone)) };
  });
  const outputs = [{ name: "truth" }, ...data.methods].map(({ name }) => {
    const canvas = make("canvas", { role: "img" });
    const top = make("span", { class: "top" }, name), dice = make("b", { class: "dice" }), gone = make("span", { class: "gone" });
    return { canvas, name, dice, gone, tile: make("div", { class: "tile" }, top, make("span", { class: "picture" }, canvas, gone), dice) };
  });
  const table = make("table", { class: "scores" }), found = make("legend");
  const link = data.own ? "" : copyLink("Copy a link to this view");
  const legend = make("p", { class: "legend" }, ...data.regions.map(region =>
    make("span", {}, make("i", { style: `background:${region.colour}` }), `${region.name.toUpperCase()} ${region.title}`)));
  figure.querySelector("noscript").before(
    ...(cases.length > 1 ? [set("Case", ...cases)] : []), about,
    set("Images that are there: switch one off by its box or its picture", make("div", { class: "tiles inputs" }, ...inputs.map(one => one.tile))),
    make("fieldset", {}, found, make("div", { class: "tiles outputs" }, ...outputs.map(one => one.tile)), legend),
    make("div", { class: "bars" }, set("Plane", ...planes), make("label", {}, "slice ", slice, " ", place),
      make("label", {}, "overlay ", opacity), ...(methods.length > 1 ? [set("Networks", ...methods)] : []), link),
    ...(methods.length ? [said, table] : []));

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

  // What a network reads of the images that are there; nothing where it lacks one that it cannot do without, or was not asked.
  const used = ({ key, reads = now() }) =>
    reads.split("+").every(name => present().includes(name)) && reads in data.cases[state.case].predicted[key] ? reads : undefined;
  const needs = ({ reads }) => reads ? `needs ${reads === names.join("+") ? "all images" : reads.replaceAll("+", ", ")}` : "not predicted from these";
  const acquired = () => names.filter(name => name in data.cases[state.case].images);
  const present = () => acquired().filter(name => state.have.has(name));
  const now = () => present().join("+");
  // Dice of a region, in %; without a truth its volume, in ml.
  const measured = (one, key, reads, k) => one.truth ? percent(one.dice[key][reads][k]) : one.volumes[key][reads][k].toFixed(1);
  function enter(i) { // a case opens on the slices with most tumour
    state.case = i;
    state.at = [...data.cases[i].start];
    if (!present().length) state.have = new Set(names);
  }
  function scores(one, have) {
    const head = make("tr", {}, make("th", { scope: "col" }, one.truth ? "Dice, %" : "Volume, ml"), ...data.regions.map(region => make("th", { scope: "col" }, region.title)));
    const rows = [...state.methods].sort().map(i => {
      const { key, name, colour } = data.methods[i], reads = used(data.methods[i]), mean = data.means[key]?.[reads];
      if (!reads) return make("tr", { "data-method": key }, make("th", { scope: "row" }, name),
        make("td", { colspan: data.regions.length }, needs(data.methods[i])));
      return make("tr", { "data-method": key }, make("th", { scope: "row" }, name), ...data.regions.map((region, k) => {
        const cell = make("td", { "data-region": region.name }, make("strong", {}, measured(one, key, reads, k)));
        if (one.truth) cell.append(bar(one.dice[key][reads][k], colour, mean?.[k]));
        if (mean) cell.append(make("small", {}, `mean of ${data.n}: ${percent(mean[k])}`));
        return cell;
      }));
    });
    const given = [have, ...[...state.methods].map(i => used(data.methods[i]) ?? have)];
    const blind = one.known !== null && given.some(reads => !reads.split("+").includes("t1ce"));
    if (blind) rows.push(make("tr", { class: "known" }, make("th", { scope: "row" }, "what images hold without t1ce"),
      ...data.regions.map(region => region.name !== "et" ? make("td", {}, "-") : make("td", { "data-region": "et" },
        make("strong", {}, percent(one.known)), bar(one.known, "currentColor", data.known),
        make("small", {}, `mean of ${data.n}: ${percent(data.known)}`)))));
    table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
    const last = data.regions.length - 1, inner = data.regions[last].title, all = acquired().join("+"), unit = one.truth ? "%" : "ml";
    const words = [...state.methods].sort().map(i => {
      const { key, name, reads } = data.methods[i];
      if (!used(data.methods[i])) return `${name}, ${needs(data.methods[i])}`;
      const [with_, without] = [all, have].map(which => `${measured(one, key, reads ?? which, last)} ${unit}`);
      return have === all || reads ? `${name} ${with_}` : `${name} ${without} (with all images ${with_})`;
    });
    said.textContent = `${data.caveat}${inner[0].toUpperCase()}${inner.slice(1)} from ${have.replaceAll("+", ", ")}: ${words.join("; ") || "no network is chosen"}.`
      + (blind ? ` What enhances shows in t1ce alone: a network that does not read it can be expected to reach ${percent(one.known)} % here`
        + " at best; more is luck, which does not last over many cases." : "");
  }

  function show(keep = true) {
    const one = data.cases[state.case];
    figure.setAttribute("aria-busy", !one.voxels);
    if (!one.voxels) (one.loading ??= load(one)).then(() => show(false)); // then its pictures are there, too
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
    found.textContent = !methods.length ? "The truth" : `What is found in them, and its ${one.truth ? "Dice" : "volume in ml"}`;
    for (const { name, box, canvas, gone, tile } of inputs) {
      box.disabled = !(name in one.images);
      box.checked = present().includes(name);
      tile.classList.toggle("missing", !box.checked);
      gone.textContent = `${name} ${box.disabled ? "not acquired" : "missing"}`;
      draw(canvas, one, box.disabled ? acquired()[0] : name); // hidden, it keeps the height of the tile
    }
    outputs.forEach(({ canvas, tile, name, dice, gone }, i) => {
      const method = data.methods[i - 1], reads = i ? used(method) : have;
      tile.hidden = i ? !state.methods.has(i - 1) : !one.truth;
      tile.classList.toggle("missing", !tile.hidden && !reads);
      if (tile.hidden) return;
      const ground = behind(reads ?? have);
      const [found, times] = i ? [reads && one.predicted[method.key][reads], one.times] : [one.truth];
      draw(canvas, one, ground, found && marks(one, found, times), times);
      if (!reads) [gone.textContent, dice.textContent] = [needs(method), ""];
      else if (i) dice.textContent = data.regions.map(({ name }, k) => `${name.toUpperCase()}\u00a0${measured(one, method.key, reads, k)}`).join(" ");
      canvas.setAttribute("aria-label", `${name} on ${ground}, ${PLANES[state.plane]} slice ${state.at[state.plane] + 1}`);
    });
    scores(one, have);
    fill(one, have);
    if (keep && !data.own) write();
  }

  // ------------------------------------------------------------------------------------------------------- the link
  function write() {
    remember({ case: data.cases[state.case].name, have: now(), plane: PLANES[state.plane], slice: state.at[state.plane] + 1,
      networks: [...state.methods].sort().map(i => data.methods[i].key.replaceAll(" ", "_")).join("+"), overlay: state.opacity });
  }
  function read() {
    const given = address();
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
  enter(0);
  if (!data.own) {
    window.addEventListener("hashchange", () => { if (read()) { show(false); figure.scrollIntoView(); } });
    read();
  }
  show(false);
})();

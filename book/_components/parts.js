// What the scripts of this folder share. A page that is opened from a file may not import another file, so
// mmlib.figures.components puts this before each of them, into one function.

// The figure that this stands in. VS Code runs a copy of the script beside the figure: then the first that nobody has drawn.
const figure = document.currentScript.closest("figure")
  ?? document.querySelector("figure:not([data-drawn]) > script[type='application/json']").parentElement;
figure.dataset.drawn = "";
const data = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
const own = Math.random().toString(36).slice(2); // radio buttons of two figures in a page of JupyterLab are two groups

// ---------------------------------------------------------------------------------------------------------- elements
function make(tag, given = {}, ...inside) {
  const element = tag instanceof Element ? tag : document.createElement(tag);
  for (const [name, value] of Object.entries(given))
    if (name.startsWith("on") || ["checked", "disabled", "value"].includes(name)) element[name] = value;
    else element.setAttribute(name, value);
  if (element.matches("input, select, button")) element.dataset.lmSuppressShortcuts = "true"; // or JupyterLab takes its arrow keys
  element.append(...inside);
  return element;
}
const choice = (type, group, inside, onchange, given = {}) => // a radio button or a check box with its label
  make("label", { class: "choice" }, make("input", { type, name: `${group}-${own}`, onchange, ...given }), make("span", {}, ...[inside].flat()));
const set = (title, ...inside) => make("fieldset", {}, make("legend", {}, title), ...inside);
const percent = value => `${(100 * value).toFixed(0)}`;
function bar(value, colour, mean) {
  const line = make("span", { class: "bar", "aria-hidden": "true" }, make("i", { style: `width:${100 * value}%;background:${colour}` }));
  if (mean !== undefined) line.append(make("b", { style: `left:${100 * mean}%` }));
  return line;
}

// --------------------------------------------------------------------------------------- the address holds the view
const parts = () => location.hash.slice(1).split("&").filter(part => part.includes("="));
const address = () => Object.fromEntries(parts().map(part => part.split("=").map(decodeURIComponent)));
function remember(view) { // what others keep there stays; a value that is undefined goes
  const others = parts().filter(part => !(part.split("=")[0] in view));
  const these = Object.entries(view).filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key}=${encodeURIComponent(value).replaceAll("%2B", "+")}`);
  history.replaceState(null, "", "#" + [...others, ...these].join("&"));
}
function copyLink(text, write = () => {}) {
  const button = make("button", { type: "button", onclick: () => {
    write();
    const done = said => { button.textContent = said; setTimeout(() => { button.textContent = text; }, 2000); };
    (navigator.clipboard ? navigator.clipboard.writeText(location.href) : Promise.reject())
      .then(() => done("Copied"), () => done("The address of this page is the link"));
  } }, text);
  return button;
}

// Paper has nothing to unfold and no dark theme: what is folded, but for code, opens while a page is printed, and closes again.
(() => {
  const page = document.documentElement;
  let opened = [], theme;
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open], .above-input)")];
    opened.forEach(one => { one.open = true; });
    theme = page.dataset.theme;
    page.dataset.theme = "light";
  });
  addEventListener("afterprint", () => {
    opened.forEach(one => { one.open = false; });
    page.dataset.theme = theme;
  });
})();

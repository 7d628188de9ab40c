// What scrolls is reached by the keyboard: the theme sees to code and outputs, this to formulas and tables in outputs.
addEventListener("DOMContentLoaded", () => {
  const reach = new ResizeObserver(seen => seen.forEach(({ target }) => {
    if (target.scrollWidth > target.clientWidth || target.scrollHeight > target.clientHeight) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }));
  document.querySelectorAll("div.math, .cell_output .output > div").forEach(box => reach.observe(box));
});

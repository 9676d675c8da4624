"use strict";
// Values of a curve under the pointer: each chart keeps its points, in its own units, in `data-points`.
const tip = document.getElementById("tip");
const short = (value) => {
  const size = Math.abs(value);
  if (size >= 1e4) return value >= 1e6 ? +(value / 1e6).toPrecision(4) + "M" : +(value / 1e3).toPrecision(4) + "k";
  return String(+value.toPrecision(4));
};
for (const svg of document.querySelectorAll("svg[data-points]")) {
  const chart = JSON.parse(svg.dataset.points);
  const rule = svg.querySelector(".pointer");
  const show = (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * chart.width;
    const x = chart.x0 + ((at - chart.left) / chart.span) * (chart.x1 - chart.x0);
    if (at < chart.left - 4 || at > chart.left + chart.span + 4) return hide();
    const lines = [];
    let nearest = null;
    for (const one of chart.series) {
      let best = 0;
      one.x.forEach((value, i) => { if (Math.abs(value - x) < Math.abs(one.x[best] - x)) best = i; });
      if (!one.x.length) continue;
      if (nearest === null || Math.abs(one.x[best] - x) < Math.abs(nearest - x)) nearest = one.x[best];
      lines.push(one.label + ": " + short(one.y[best]));
    }
    if (nearest === null) return;
    const place = chart.left + ((nearest - chart.x0) / (chart.x1 - chart.x0 || 1)) * chart.span;
    rule.setAttribute("x1", place);
    rule.setAttribute("x2", place);
    rule.setAttribute("visibility", "visible");
    tip.textContent = chart.x_label + " " + short(nearest) + "\n" + lines.join("\n");
    tip.hidden = false;
    tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 6)) + "px";
    tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 6)) + "px";
  };
  const hide = () => {
    tip.hidden = true;
    rule.setAttribute("visibility", "hidden");
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", hide);
}

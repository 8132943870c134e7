// Timelines answer to the mouse and to the arrow keys; without this script their dots still have
// titles, and everything else on the page stands as it is.
for (const plot of document.querySelectorAll(".plot")) {
  const points = JSON.parse(plot.dataset.points);
  const cursor = plot.querySelector(".cursor");
  const reading = plot.parentElement.querySelector(".reading");
  const hint = reading.textContent;
  let at = -1;
  const show = (next) => {
    at = Math.max(0, Math.min(points.length - 1, next));
    const [x, , text] = points[at];
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.style.visibility = "visible";
    reading.textContent = text;
    plot.setAttribute("aria-valuenow", at + 1);
    plot.setAttribute("aria-valuetext", text);
  };
  const hide = () => {
    cursor.style.visibility = "hidden";
    reading.textContent = hint;
  };
  const nearest = (x) =>
    points.reduce((best, p, i) => (Math.abs(p[0] - x) < Math.abs(points[best][0] - x) ? i : best), 0);
  plot.addEventListener("pointermove", (event) => {
    const area = plot.querySelector("svg").getBoundingClientRect();
    show(nearest((1000 * (event.clientX - area.left)) / area.width));
  });
  plot.addEventListener("pointerleave", () => document.activeElement === plot || hide());
  plot.addEventListener("focus", () => show(Math.max(0, at)));
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.round(points.length / 10));
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: page, PageDown: -page };
    if (event.key in steps) show(at + steps[event.key]);
    else if (event.key === "Home") show(0);
    else if (event.key === "End") show(points.length - 1);
    else return;
    event.preventDefault();
  });
}

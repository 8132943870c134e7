// Timelines answer to the mouse, to touch and to the keyboard, and open the frames that were kept.
// Without this script all else on the page stands as it is.
const clock = (seconds) => {
  const tenths = Math.round(seconds * 10);
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  const minutes = Math.floor(tenths / 600);
  const hours = Math.floor(minutes / 60);
  return hours ? `${hours}:${String(minutes % 60).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
};

const words = ([time, score, size, frame]) =>
  `${clock(time)} · ${score === null ? "" : `score ${score.toFixed(2)} · `}${size} px · frame ${frame}`;

const nearest = (list, time, of) =>
  list.reduce((best, each, i) => (Math.abs(of(each) - time) < Math.abs(of(list[best]) - time) ? i : best), 0);

const pointsOf = new WeakMap();

// The frame, large: one dialog for all faces of all files.
const viewer = document.querySelector(".viewer");
const part = (name) => viewer.querySelector(name);
let kept = [];
let shown = 0;
let asked = null;

const pictures = (scope, face) => {
  const at = new Map();
  for (const each of scope.querySelectorAll(`.zoom[data-face="${face}"], .map[data-face="${face}"]`))
    if (each.querySelector("img")) at.set(Number(each.dataset.time), each);
  return [...at].map(([time, from]) => ({ time, from })).sort((a, b) => a.time - b.time);
};

const caption = (scope, face, item) => {
  const plot = scope.querySelector(`.plot[data-face="${face}"]`);
  const points = plot && pointsOf.get(plot);
  const point = points && points[nearest(points, item.time, (p) => p[0])];
  return point && Math.abs(point[0] - item.time) < 0.01 ? words(point) : item.from.textContent.trim();
};

const view = (next) => {
  shown = Math.max(0, Math.min(kept.length - 1, next));
  const { scope, face, item } = kept[shown];
  const timed = scope.querySelector(".plot, .map b") !== null;
  part("h2").textContent = `Face ${Number(face) + 1}${timed ? ` at ${clock(item.time)}` : ""}`;
  const far = asked !== null && Math.abs(asked[0] - item.time) > 0.05;
  part(".note").textContent = far ? `You chose ${words(asked)}. This is the nearest frame that was kept.` : "";
  if (item.from.classList.contains("map")) {
    part(".stage").replaceChildren(item.from.cloneNode(true));
  } else {
    const picture = item.from.querySelector("img").cloneNode();
    const text = document.createElement("figcaption");
    text.textContent = caption(scope, face, item);
    part(".stage").replaceChildren(picture, text);
  }
  part(".before").disabled = shown === 0;
  part(".after").disabled = shown === kept.length - 1;
};

const open = (from, face, time, point) => {
  const scope = from.closest(".file");
  kept = pictures(scope, face).map((item) => ({ scope, face, item }));
  if (!kept.length) return;
  asked = point;
  view(nearest(kept, time, (each) => each.item.time));
  viewer.showModal();
};

const step = (by) => {
  asked = null;
  view(shown + by);
};

part(".close").addEventListener("click", () => viewer.close());
part(".before").addEventListener("click", () => step(-1));
part(".after").addEventListener("click", () => step(1));
viewer.addEventListener("click", (event) => event.target === viewer && viewer.close());
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
  else return;
  event.preventDefault();
});

for (const button of document.querySelectorAll(".zoom[data-time]"))
  button.addEventListener("click", () => open(button, button.dataset.face, Number(button.dataset.time), null));

for (const plot of document.querySelectorAll(".plot")) {
  const points = JSON.parse(plot.dataset.points);
  const members = plot.dataset.members ? plot.dataset.members.split("|") : [];
  const end = Number(plot.dataset.end);
  const cursors = plot.querySelectorAll(".cursor");
  const reading = plot.parentElement.querySelector(".reading");
  const hint = reading.textContent;
  let at = -1;
  pointsOf.set(plot, points);
  const show = (next) => {
    at = Math.max(0, Math.min(points.length - 1, next));
    const point = points[at];
    for (const cursor of cursors) {
      cursor.hidden = false;
      cursor.style.left = `${(100 * point[0]) / end}%`;
    }
    const each = members.flatMap((name, i) => (point[4 + i] === null ? [] : [`${name} ${point[4 + i].toFixed(2)}`]));
    reading.textContent = [words(point), ...each].join(" · ");
    reading.classList.add("live");
    plot.setAttribute("aria-valuenow", at + 1);
    plot.setAttribute("aria-valuetext", words(point));
  };
  const hide = () => {
    for (const cursor of cursors) cursor.hidden = true;
    reading.textContent = hint;
    reading.classList.remove("live");
  };
  const point = (event) => {
    const area = plot.querySelector(".area").getBoundingClientRect();
    show(nearest(points, (end * (event.clientX - area.left)) / area.width, (p) => p[0]));
  };
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", () => document.activeElement === plot || hide());
  plot.addEventListener("focus", () => show(Math.max(0, at)));
  plot.addEventListener("blur", hide);
  plot.addEventListener("click", () => open(plot, plot.dataset.face, points[at][0], points[at]));
  plot.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.round(points.length / 10));
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: page, PageDown: -page };
    if (event.key in steps) show(at + steps[event.key]);
    else if (event.key === "Home") show(0);
    else if (event.key === "End") show(points.length - 1);
    else if (event.key === "Enter" || event.key === " ") open(plot, plot.dataset.face, points[at][0], points[at]);
    else return;
    event.preventDefault();
  });
}

// On a phone rows are drawn as blocks, and would no longer be said as a table's.
const roles = { table: "table", "thead, tbody": "rowgroup", tr: "row", td: "cell", "thead th": "columnheader", "tbody th": "rowheader" };
for (const [tags, role] of Object.entries(roles))
  for (const each of document.querySelectorAll(tags)) each.setAttribute("role", role);

// On paper nothing can be unfolded. (Chromium needs none of this: see the style sheet.)
let unfolded = [];
addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details:not([open], .file, .curve)")];
  for (const each of unfolded) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of unfolded) each.open = false;
});

// Links to a file that is folded away unfold it, in browsers that don't do so themselves.
const unfold = () => {
  const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  const folded = target && target.closest("details.file");
  if (!folded || folded.open) return;
  folded.open = true;
  target.scrollIntoView();
};
addEventListener("hashchange", unfold);
unfold();

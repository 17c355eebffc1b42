"use strict";
// Values under the pointer: the <title> of a chart's band, shown at once instead of after a second.
(() => {
  const tip = document.getElementById("tip");
  const texts = new WeakMap();
  for (const band of document.querySelectorAll(".band")) {
    const title = band.querySelector("title");
    texts.set(band, title.textContent);
    title.remove();
  }
  const place = (event) => {
    const band = event.target.closest ? event.target.closest(".band") : null;
    tip.hidden = !band;
    if (!band) return;
    tip.textContent = texts.get(band);
    const box = tip.getBoundingClientRect();
    const right = event.clientX + 16 + box.width < document.documentElement.clientWidth;
    const left = right ? event.clientX + 16 : event.clientX - 16 - box.width;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, event.clientY - box.height - 12)}px`;
  };
  document.addEventListener("pointermove", place);
  document.addEventListener("pointerdown", place);
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
})();

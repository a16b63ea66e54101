// Reads out the influence on a word that is pointed at, tapped or reached with the arrow keys.
for (const text of document.querySelectorAll(".passage[tabindex]")) {
  const words = [...text.querySelectorAll(".t[title]")];
  const out = text.closest(".answer").querySelector(".readout");
  let now = -1;
  const show = (next) => {
    if (!words[next]) return;
    words[now]?.classList.remove("now");
    now = next;
    words[now].classList.add("now");
    out.textContent = words[now].title;
  };
  const at = (event) => words.indexOf(event.target.closest(".t"));
  text.addEventListener("pointerover", (event) => show(at(event)));
  text.addEventListener("click", (event) => show(at(event)));
  text.addEventListener("keydown", (event) => {
    const forward = getComputedStyle(text).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
    if (event.key === "Home") show(0);
    else if (event.key === "End") show(words.length - 1);
    else if (event.key === forward) show(now + 1);
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") show(now - 1);
    else return;
    event.preventDefault();
  });
}

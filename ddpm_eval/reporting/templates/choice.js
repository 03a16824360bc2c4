// A run that is chosen from a list, which changes picture and numbers together.
(() => {
  document.querySelectorAll(".choice").forEach((block) => {
    const data = JSON.parse(block.querySelector("script.options").textContent);
    const select = block.querySelector("select");
    const show = () => {
      const chosen = data.options[select.selectedIndex];
      block.querySelector("img").src = chosen.picture;
      const terms = chosen.numbers.flatMap((pair) => pair.map((text, i) => {
        const part = document.createElement(i ? "dd" : "dt");
        part.textContent = text;
        return part;
      }));
      block.querySelector(".measures").replaceChildren(...terms);
    };
    select.addEventListener("change", show);
    show();  // a browser may keep the choice when the page is loaded again
  });
})();

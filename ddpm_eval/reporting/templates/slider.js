// A position along the reverse process, which moves pictures, numbers and the mark in the curve together.
(() => {
  function term(label, text) {
    const name = document.createElement("dt");
    const value = document.createElement("dd");
    name.textContent = label;
    value.textContent = text;
    return [name, value];
  }

  document.querySelectorAll(".slider").forEach((block) => {
    const data = JSON.parse(block.querySelector("script.positions").textContent);
    const input = block.querySelector("input");
    const picture = block.querySelector("img");
    const chart = data.curve && Charts.charts.get(data.curve.name);
    const last = data.steps[data.steps.length - 1];
    const show = () => {
      const i = Number(input.value);
      const step = `${data.steps[i]} of ${last}`;
      picture.src = data.pictures[i];
      block.querySelector("output").textContent = step;
      input.setAttribute("aria-valuetext", `${step} reverse steps`);
      const terms = data.measures.map(({ label, value, low, high }) => term(label, Charts.format(value[i], low[i], high[i])));
      block.querySelector(".measures").replaceChildren(...terms.flat());
      if (chart && data.marks[i] !== null) chart.at(data.marks[i]);
    };
    input.addEventListener("input", show);
    show();
  });
})();

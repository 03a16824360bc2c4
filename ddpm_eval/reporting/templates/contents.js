// The table of contents marks where the reader is, and folds on a narrow screen.
(() => {
  const details = document.querySelector(".contents details");
  const wide = matchMedia("(min-width: 76rem)");
  const links = [...details.querySelectorAll("a")];
  const fold = () => { details.open = wide.matches; };
  fold();
  wide.addEventListener("change", fold);
  links.forEach((link) => link.addEventListener("click", () => { if (!wide.matches) details.open = false; }));
  const observer = new IntersectionObserver((entries) => {
    entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
      links.forEach((link) => {
        if (link.hash === `#${entry.target.id}`) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      });
    });
  }, { rootMargin: "-10% 0px -80% 0px" });
  links.forEach((link) => { const part = document.querySelector(link.hash); if (part) observer.observe(part); });
})();

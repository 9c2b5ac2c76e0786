// A classic script in the head, so that the page is never painted in the wrong theme first.
(function () {
  try {
    const theme = localStorage.getItem("runcast:theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage is forbidden: the system's theme it is.
  }
})();

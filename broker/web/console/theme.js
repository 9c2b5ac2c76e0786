// A classic script in the head: the page must not be painted in the wrong theme first.
(function () {
  try {
    const theme = localStorage.getItem("runcast:theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage is forbidden: use the system's theme.
  }
})();

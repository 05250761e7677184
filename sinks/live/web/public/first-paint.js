(() => {
  try {
    const theme = localStorage.getItem("hitstream.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
    const lang = localStorage.getItem("hitstream.lang");
    if (lang === "en") document.documentElement.lang = "en";
  } catch {
    // Storage is switched off: the system's theme and Korean it is.
  }
})();

// Runs before the page is drawn, so that it never flashes in the other colours. Without a choice the system's is taken.
"use strict";
try {
  const theme = localStorage.getItem("causeway.theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  /* storage is forbidden: the system's colours */
}

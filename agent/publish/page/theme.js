// Light, dark, or as the system is.

/** @typedef {"auto" | "light" | "dark"} Theme */

const KEY = "sockagent.theme";
/** @type {Theme[]} */
const THEMES = ["auto", "light", "dark"];

/** @returns {Theme} */
function stored() {
  try {
    return THEMES.find((theme) => theme === localStorage.getItem(KEY)) ?? "auto";
  } catch {
    return "auto"; // The browser forbids storage.
  }
}

/** Let a button change the theme. @param {HTMLElement} button */
export function themeButton(button) {
  let theme = stored();
  const show = () => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    const names = { auto: "◐ auto", light: "○ light", dark: "● dark" };
    button.textContent = names[theme];
    button.title = `Colours: ${theme}; press for ${next}`;
    button.setAttribute("aria-label", button.title);
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // It lasts as long as the page.
    }
    show();
  });
  show();
}

// A question before clients lose something.

import { element } from "./rows.js";

const dialog = element("confirm");
element("cancel").addEventListener("click", () => dialog.close());
element("proceed").addEventListener("click", () => dialog.close("yes"));

/** Whether the user says yes, by a button that is named after what follows. */
export function isConfirmed(question, action) {
  element("question").textContent = question;
  element("proceed").textContent = action;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

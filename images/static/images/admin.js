// Makes the admin's pages of images more comfortable. They work without it, too.
"use strict";

// A button that copies an address, beside each field that holds one.
function addCopyButton(field) {
    // Where the operator has not set PUBLIC_URL, the server knows the path only.
    field.value = new URL(field.value, document.baseURI).href;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button images-copy";
    button.textContent = field.dataset.copy;
    const said = document.createElement("span");
    said.className = "images-said";
    said.setAttribute("role", "status");
    button.addEventListener("click", async () => {
        field.select();
        try {
            await navigator.clipboard.writeText(field.value);
        } catch {
            document.execCommand("copy"); // plain http: there is no clipboard object
        }
        said.textContent = field.dataset.copied;
    });
    field.after(button, said);
}

// A form that costs money is sent once; meanwhile it says that it works.
function sendOnce(form) {
    form.addEventListener("submit", () => {
        for (const button of form.querySelectorAll("[type=submit]")) {
            button.disabled = true;
        }
        form.querySelector("[role=status]").textContent = form.dataset.working;
    });
    // Coming back with the browser's button shows the page as it was left.
    window.addEventListener("pageshow", () => {
        for (const button of form.querySelectorAll("[type=submit]")) {
            button.disabled = false;
        }
        form.querySelector("[role=status]").textContent = "";
    });
}

document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("input[data-copy]").forEach(addCopyButton);
    document.querySelectorAll("form[data-working]").forEach(sendOnce);
});

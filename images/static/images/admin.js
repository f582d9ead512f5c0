// Makes the admin's pages of images more comfortable. They work without it, too.
"use strict";

// Copies an address, and says so beside the button for a while.
async function copyAddress(button, address, field) {
    // Where the operator has not set PUBLIC_URL, the server knows the path only.
    const absolute = new URL(address, document.baseURI).href;
    try {
        await navigator.clipboard.writeText(absolute);
    } catch {
        copyByHand(absolute, field); // plain http: there is no clipboard object
    }
    let said = button.nextElementSibling;
    if (!said || !said.classList.contains("images-said")) {
        said = document.createElement("span");
        said.className = "images-said";
        said.setAttribute("role", "status");
        button.after(said);
    }
    said.textContent = button.dataset.copied;
    window.setTimeout(() => { said.textContent = ""; }, 4000);
}

function copyByHand(address, field) {
    const box = field || document.createElement("textarea");
    if (!field) {
        box.value = address;
        document.body.append(box);
    }
    box.select();
    document.execCommand("copy");
    if (!field) {
        box.remove();
    }
}

// A button beside each field that holds an address.
function addCopyButton(field) {
    field.value = new URL(field.value, document.baseURI).href;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button images-copy";
    button.textContent = field.dataset.copy;
    button.dataset.copied = field.dataset.copied;
    button.addEventListener("click", () => copyAddress(button, field.value, field));
    field.after(button);
}

function showCopyButtons(root) {
    for (const button of root.querySelectorAll("button[data-copy][hidden]")) {
        button.hidden = false;
        button.addEventListener("click", () => copyAddress(button, button.dataset.copy));
    }
}

// A preview that cannot be had says so.
function tellMissing(root) {
    for (const picture of root.querySelectorAll(".images-results img, .images-versions img")) {
        const tell = () => {
            const told = document.createElement("span");
            told.className = "images-nothing";
            told.textContent = document.querySelector("[data-missing]")?.dataset.missing || "";
            picture.replaceWith(told);
        };
        picture.addEventListener("error", tell);
        if (picture.complete && !picture.naturalWidth && picture.loading !== "lazy") {
            tell();
        }
    }
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

// Pending images: seconds that pass, and a look every few seconds at what became of them.
const PAUSE = 3000;
const MAX_LOOKS = 1200; // an hour; then the page is as it is until it is loaded again

function tick() {
    for (const span of document.querySelectorAll(".images-elapsed")) {
        span.dataset.since ??= String(Date.now() / 1000 - Number(span.dataset.elapsed));
        const seconds = Math.floor(Date.now() / 1000 - Number(span.dataset.since));
        span.textContent = span.textContent.replace(/\d+/, String(seconds));
    }
}

function pendingElements() {
    return [...document.querySelectorAll("[data-pending]")];
}

async function look() {
    const source = document.querySelector("[data-progress]");
    const pending = pendingElements();
    if (!source || !pending.length || document.hidden) {
        return pending.length > 0;
    }
    const ids = [...new Set(pending.map((element) => element.dataset.pending))].slice(0, 200);
    const url = new URL(source.dataset.progress, document.baseURI);
    url.searchParams.set("ids", ids.join(","));
    const answer = await fetch(url, {headers: {Accept: "application/json"}});
    if (!answer.ok || !answer.headers.get("Content-Type").includes("json")) {
        return answer.status >= 500; // logged out or forbidden: no use in asking again
    }
    await showChanges(pending, await answer.json());
    return pendingElements().length > 0;
}

async function showChanges(pending, states) {
    const changed = pending.filter((element) => {
        const state = states[element.dataset.pending];
        return !state || state.seconds === null || !element.querySelector(`.images-is-${state.kind}`);
    });
    if (!changed.length) {
        return;
    }
    if (changed.some((element) => "reload" in element.dataset)) {
        window.location.reload();
        return;
    }
    const text = await (await fetch(window.location.href)).text();
    const fresh = new DOMParser().parseFromString(text, "text/html");
    for (const element of changed) {
        replaceRow(element, fresh, states[element.dataset.pending]);
    }
}

// Puts the row or tile of an image as it is now in place of the old one, which keeps its place and its choice.
function replaceRow(element, fresh, state) {
    const selector = `[data-image="${element.dataset.pending}"]`;
    const old = element.closest("tr, li");
    const now = fresh.querySelector(selector)?.closest("tr, li");
    if (now) {
        const chosen = old.querySelector(".action-select")?.checked;
        const row = document.importNode(now, true);
        old.replaceChildren(...row.childNodes);
        const box = old.querySelector(".action-select");
        if (box) {
            box.checked = Boolean(chosen);
        }
        showCopyButtons(old);
        return;
    }
    // The filters do not find it any more: it stays where it is, with its new state.
    element.removeAttribute("data-pending");
    if (state) {
        const pill = new DOMParser().parseFromString(state.pill, "text/html").body;
        element.replaceChildren(...pill.childNodes);
    }
}

function watch(looks) {
    if (looks >= MAX_LOOKS) {
        return;
    }
    window.setTimeout(async () => {
        let more = true;
        try {
            more = await look();
        } catch {
            // the network is away for a moment
        }
        if (more) {
            watch(looks + 1);
        }
    }, PAUSE);
}

// The gallery: select all, a count, and everything that the filters find, as Django's own script does for tables.
function countChoice(all, boxes) {
    const chosen = boxes.filter((box) => box.checked).length;
    all.checked = chosen > 0 && chosen === boxes.length;
    all.indeterminate = chosen > 0 && chosen < boxes.length;
    const counter = document.querySelector(".action-counter");
    if (counter) {
        counter.textContent = all.dataset.count.replace("{chosen}", chosen).replace("{all}", boxes.length);
    }
    chooseAcross(false, all.checked);
}

function chooseAcross(on, offered) {
    for (const input of document.querySelectorAll("input.select-across")) {
        input.value = on ? "1" : "0";
    }
    const shown = {".actions .question": offered && !on, ".actions .clear": on, ".actions .all": on, ".actions .action-counter": !on};
    for (const [selector, visible] of Object.entries(shown)) {
        document.querySelectorAll(selector).forEach((element) => element.classList.toggle("hidden", !visible));
    }
}

function watchGallery(all) {
    const boxes = [...document.querySelectorAll(".images-gallery .action-select")];
    const count = () => countChoice(all, boxes);
    const set = (checked) => {
        boxes.forEach((box) => { box.checked = checked; });
        count();
    };
    all.disabled = false;
    all.addEventListener("change", () => set(all.checked));
    boxes.forEach((box) => box.addEventListener("change", count));
    document.querySelectorAll(".actions .question a").forEach((link) => link.addEventListener("click", (event) => {
        event.preventDefault();
        chooseAcross(true, false);
    }));
    document.querySelectorAll(".actions .clear a").forEach((link) => link.addEventListener("click", (event) => {
        event.preventDefault();
        set(false);
    }));
    window.addEventListener("pageshow", count);
}

// On narrow screens the filters are above the images, and closed.
function closeFilters(filters) {
    const narrow = window.matchMedia("(max-width: 1024px)");
    const fit = () => { filters.open = !narrow.matches; };
    narrow.addEventListener("change", fit);
    fit();
}

// Django's search field is labelled by a picture alone.
function nameSearch(field) {
    field.setAttribute("aria-label", document.querySelector("label[for=searchbar] img")?.alt || field.title);
}

document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("#searchbar").forEach(nameSearch);
    document.querySelectorAll("input[data-copy]").forEach(addCopyButton);
    document.querySelectorAll("form[data-working]").forEach(sendOnce);
    document.querySelectorAll(".images-filters").forEach(closeFilters);
    document.querySelectorAll("#images-choose-all").forEach(watchGallery);
    showCopyButtons(document);
    tellMissing(document);
    if (pendingElements().length) {
        window.setInterval(tick, 1000);
        watch(0);
    }
});

// What overlaps or is cut on this page, measured by the boxes of its texts, pictures and controls.
() => {
    const SLACK = 2; // pixels: lines of text touch each other
    const known = new Map();
    const clippedBy = (element) => {
        if (known.has(element)) { return known.get(element); }
        const clips = [];
        known.set(element, clips);
        for (let up = element; up && up !== document.documentElement; up = up.parentElement) {
            const style = getComputedStyle(up);
            if (style.position === "fixed") { break; }
            if (style.overflowX !== "visible" || style.overflowY !== "visible") { clips.push(up); }
        }
        return clips;
    };
    const isShown = (element) => element.checkVisibility({checkOpacity: true, checkVisibilityCSS: true})
        && !element.closest(".visually-hidden, .sr-only, [aria-hidden=true], .skip-to-content-link, dialog:not([open])");
    const name = (element) => {
        const classes = typeof element.className === "string" ? element.className.trim().split(/\s+/).slice(0, 2) : [];
        const text = (element.innerText || element.value || element.getAttribute("alt") || "").trim().slice(0, 30);
        return `${element.tagName.toLowerCase()}.${classes.join(".")} "${text}"`;
    };
    const scrolls = (element) => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
    const boxes = [];
    const wrong = [];
    const add = (element, rect) => {
        let {left, top, right, bottom} = rect;
        const clips = clippedBy(element);
        for (const clip of clips) {
            const box = clip.getBoundingClientRect();
            [left, right] = [Math.max(left, box.left), Math.min(right, box.right)];
            [top, bottom] = [Math.max(top, box.top), Math.min(bottom, box.bottom)];
        }
        if (right - left < 1 || bottom - top < 1) { return; }
        const cut = rect.right > window.innerWidth + 1 || rect.left < -1;
        if (cut && !clips.some(scrolls)) { wrong.push(`cut: ${name(element)}`); }
        boxes.push({element, left, top, right, bottom});
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const parent = node.parentElement;
        if (!node.textContent.trim() || parent.closest("script, style, option, noscript, textarea, svg") || !isShown(parent)) { continue; }
        const range = document.createRange();
        range.selectNodeContents(node);
        for (const rect of range.getClientRects()) { add(parent, rect); }
    }
    for (const element of document.querySelectorAll("img, input:not([type=hidden]), select, textarea, button, .images-pill, a.button")) {
        if (isShown(element)) { add(element, element.getBoundingClientRect()); }
    }
    boxes.sort((one, other) => one.top - other.top);
    boxes.forEach((one, number) => {
        for (let next = number + 1; next < boxes.length && boxes[next].top < one.bottom - SLACK; next += 1) {
            const other = boxes[next];
            if (one.element.contains(other.element) || other.element.contains(one.element)) { continue; }
            const width = Math.min(one.right, other.right) - Math.max(one.left, other.left);
            const height = Math.min(one.bottom, other.bottom) - other.top;
            if (width > SLACK && height > SLACK) { wrong.push(`overlap: ${name(one.element)} and ${name(other.element)}`); }
        }
    });
    for (const element of document.querySelectorAll("td, th, button, a, dd, h1, h2, .images-pill, .results")) {
        const style = getComputedStyle(element);
        const shortened = style.textOverflow === "ellipsis" || style.webkitLineClamp !== "none";
        if (isShown(element) && style.overflowX !== "visible" && !shortened && element.scrollWidth > element.clientWidth + 1) {
            wrong.push(`hidden: ${name(element)} ${element.scrollWidth} > ${element.clientWidth}`);
        }
    }
    if (document.documentElement.scrollWidth > window.innerWidth) { wrong.push(`page: ${document.documentElement.scrollWidth}`); }
    return [...new Set(wrong)].slice(0, 20);
}

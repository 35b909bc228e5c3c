"""What keeps somebody out of a page, as axe-core finds it."""

import re

from axe_playwright_python.sync_playwright import Axe

from .jupyterlab import REPOSITORY


def barriers(lab, where):
    """Give what axe calls serious or critical, each with the rule and the element.

    In JupyterLab's contained panels axe takes all text for invisible and compares no
    colours: so it also looks at the same elements on a page of their own, with the
    theme's colours.
    """
    found = Axe().run(lab.page, context=where).response["violations"]
    folder = REPOSITORY / "nbdurable" / "view" / "notebook"
    style = "\n".join((folder / name).read_text() for name in ("view.css", "detail.css"))
    names = sorted(set(re.findall(r"--jp-[a-z0-9-]+", style)) | {"--jp-layout-color0"})
    html, colours = lab.page.evaluate(
        """([where, names]) => {
            const shown = document.querySelector(where);
            const style = getComputedStyle(shown);
            const colours = names.map((name) => `${name}: ${style.getPropertyValue(name)};`);
            return [shown.outerHTML, colours.join(" ")];
        }""",
        [where, names],
    )
    page = lab.page.context.new_page()
    page.emulate_media(reduced_motion="reduce")  # a glyph that breathes is pale for a moment
    page.set_content(
        f"<html lang=en><title>alone</title><style>:root {{ {colours} }} body {{ background: "
        f"var(--jp-layout-color0); color: var(--jp-content-font-color1) }} {style}</style>"
        f"<main><h1>alone</h1>{html}</main></html>"
    )
    alone = Axe().run(page).response
    page.close()
    assert "color-contrast" in {rule["id"] for rule in alone["passes"] + alone["violations"]}
    return [
        (violation["id"], node["html"], node["failureSummary"])
        for violation in found + alone["violations"]
        if violation["impact"] in {"serious", "critical"}
        for node in violation["nodes"]
    ]

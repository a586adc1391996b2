"""How Sphinx builds the site: ``make docs``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import atldld

HERE = Path(__file__).parent

project = "atldld"
author = "The atldld developers"
project_copyright = "2026, the atldld developers"
version = release = atldld.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_copybutton",
]
exclude_patterns = ["_templates", "_build"]
templates_path = ["_templates"]

html_theme = "furo"
html_title = f"atldld {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
pygments_dark_style = "github-dark"

# Wide tables of the pages and of notebooks scroll by themselves; see site.css.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Notebooks are stored with their pictures, and run by the tests.
nb_execution_mode = "off"

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_preprocess_types = False
napoleon_use_rtype = False
add_module_names = False
toc_object_entries_show_parents = "hide"

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


NOTEBOOKS = """\
# Notebooks

Each runs as it stands. They are in the folder `notebooks` of the repository.

```{{toctree}}
{names}
```
"""


def _bring_notebooks(app: Any, config: Any) -> None:
    """Copy the notebooks to where Sphinx looks for pages; they live beside ``docs``."""
    target = HERE / "notebooks"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    notebooks = sorted((HERE.parent / "notebooks").glob("*.ipynb"))
    for notebook in notebooks:
        shutil.copy(notebook, target)
    names = "\n".join(notebook.stem for notebook in notebooks)
    (target / "index.md").write_text(NOTEBOOKS.format(names=names), encoding="utf-8")


def _sweep_reference(app: Any, config: Any) -> None:
    """Remove the generated pages, so that none is left of a name that is gone."""
    shutil.rmtree(HERE / "reference" / "generated", ignore_errors=True)


def setup(app: Any) -> None:
    """Register what happens before pages are looked for."""
    app.connect("config-inited", _sweep_reference)
    app.connect("config-inited", _bring_notebooks)

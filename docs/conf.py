"""The documentation as a site: sphinx-build -W --keep-going docs build/docs."""

import sys
from pathlib import Path

import wn_rl

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "wn_rl"
author = "The wn_rl authors"
version = release = wn_rl.__version__
copyright = "The wn_rl authors; MIT licence"

extensions = ["myst_parser", "sphinx.ext.autodoc", "mathml", "plain_docstrings"]
exclude_patterns = ["_build"]
smartquotes = False  # flags begin with two hyphens

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"wn_rl {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"  # no scripts, no network
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5fa8", "color-brand-content": "#1f5fa8"},
    "dark_css_variables": {"color-brand-primary": "#7cb7ff", "color-brand-content": "#7cb7ff"},
}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 170
add_module_names = False
toc_object_entries_show_parents = "hide"
